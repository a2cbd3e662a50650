"""Topologies name the device that runs a replica, and its compiler."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.preflight import gpu_worker
from vit_scaling.preflight.environment import GPU, TPU
from vit_scaling.preflight.targets import find_target
from vit_scaling.scaling.planning.devices import DEVICES


def test_topologies_name_devices():
    target = find_target("v3:2x2")
    assert target.device is DEVICES["tpu_v3"]
    assert target.toolchain is TPU
    assert find_target("v5e:4x4").device.name == "tpu_v5e"


@pytest.mark.parametrize(
    "topology", ["v3", "v7:2x2", "a100:1", "", "v3:", "h100:8", "gtx_480"]
)
def test_another_topology_is_rejected(topology):
    with pytest.raises(ValueError, match=r"`topology` must be VERSION:SIZES"):
        find_target(topology)


@pytest.mark.parametrize("name", gpu_worker.GPUS)
def test_gpus_are_targets_of_their_own_compiler(name):
    target = find_target(f"{name.replace('_', '-')}x4")
    assert target.device is DEVICES[name] and target.toolchain is GPU
    assert gpu_worker.parse_topology(target.topology) == (gpu_worker.GPUS[name], 4)
    assert target.device.bandwidth == pytest.approx(
        gpu_worker.GPUS[name].bandwidth, rel=1e-3
    )


def test_a_gpu_may_be_named_as_its_maker_does():
    assert find_target("RTX4090").device.name == "rtx_4090"
    assert find_target("a100-80gb").device.name == "a100_80gb"
