"""The table of devices, and sizes given by hand."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.scaling.devices import DEVICES, GIB, device_named


def test_tpus_v2_to_v6e_and_common_gpus_are_there_with_sources():
    for name in ("tpu_v2", "tpu_v3", "tpu_v4", "tpu_v5e", "tpu_v5p", "tpu_v6e"):
        assert device_named(name).tpu
    assert not device_named("A100_80GB").tpu
    assert all(device.source for device in DEVICES.values())


# What libtpu 0.0.42 answers to a program that does not fit: "exceeds available HBM".
@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("tpu_v2", 7.48),
        ("tpu_v3", 15.48),
        ("tpu_v4", 30.75),  # Both cores of a chip as one device.
        ("tpu_v5e", 15.75),
        ("tpu_v5p", 95.74),
        ("tpu_v6e", 31.25),
    ],
)
def test_a_tpu_offers_what_its_compiler_says(name, gib):
    assert device_named(name).memory_bytes == gib * GIB


# Chip's peak in TFLOP/s and memory in GiB, from https://docs.cloud.google.com/tpu/docs.
@pytest.mark.parametrize(
    ("name", "peak", "memory"),
    [
        ("tpu_v3", 123, 32),
        ("tpu_v4", 275, 32),
        ("tpu_v5e", 197, 16),
        ("tpu_v5p", 459, 96),
        ("tpu_v6e", 918, 32),
    ],
)
def test_a_chip_has_its_published_peak_and_not_more_than_its_memory(name, peak, memory):
    device = device_named(name)
    assert device.peak_flops * device.cores == peak * 1e12
    assert 0.9 * memory * GIB < device.memory_bytes * device.cores < memory * GIB


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


def test_every_tpu_has_a_bandwidth_and_the_source_names_it():
    # Half of a chip's for a core of v2 and v3.
    for device in (device for device in DEVICES.values() if device.tpu):
        chip = device.bandwidth * device.cores / 1e9
        assert f", {chip:.0f} GB/s" in device.source
