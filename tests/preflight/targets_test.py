"""Topologies name the device that runs a replica, and its compiler."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.preflight.environment import TPU
from vit_scaling.preflight.targets import find_target
from vit_scaling.scaling.planning.devices import DEVICES


def test_topologies_name_devices():
    target = find_target("v3:2x2")
    assert target.device is DEVICES["tpu_v3"]
    assert target.toolchain is TPU
    assert find_target("v5e:4x4").device.name == "tpu_v5e"


@pytest.mark.parametrize("topology", ["v3", "v7:2x2", "a100:1", "", "v3:"])
def test_another_topology_is_rejected(topology):
    with pytest.raises(ValueError, match=r"`topology` must be VERSION:SIZES"):
        find_target(topology)
