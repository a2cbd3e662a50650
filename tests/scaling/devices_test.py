"""The table of devices, and sizes given by hand."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.scaling.devices import DEVICES, GIB, device_named


def test_tpus_v2_to_v6e_and_common_gpus_are_there_with_sources():
    for name in ("tpu_v2", "tpu_v3", "tpu_v4", "tpu_v5e", "tpu_v5p", "tpu_v6e"):
        assert device_named(name).tpu
    assert not device_named("A100_80GB").tpu
    assert all(device.source for device in DEVICES.values())


def test_a_v3_core_offers_what_the_compiler_says():
    assert device_named("tpu_v3").memory_bytes == 15.48 * GIB


def test_a_size_is_a_device():
    assert device_named("24GiB").memory_bytes == 24 * GIB
    assert device_named("24").memory_bytes == 24 * GIB
    assert device_named("24 GB").memory_bytes == 24e9


@pytest.mark.parametrize(("name", "near"), [("a100", "a100_40gb"), ("tpuv3", "tpu_v3")])
def test_an_unknown_device_is_answered_with_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"Did you mean '{near}'"):
        device_named(name)


@pytest.mark.parametrize("name", ["0GiB", "-3GiB", ""])
def test_no_size_is_no_device(name):
    with pytest.raises(ValueError, match="No device is called"):
        device_named(name)
