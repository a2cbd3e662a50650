"""The table of devices, and sizes given by hand."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.scaling.planning.devices import (
    DEVICES,
    GIB,
    device_named,
    peak_flops_of,
)


def test_tpus_v2_to_v6e_and_common_gpus_are_there_with_sources():
    for name in ("tpu_v2", "tpu_v3", "tpu_v4", "tpu_v5e", "tpu_v5p", "tpu_v6e"):
        assert device_named(name).tpu
    assert not device_named("A100_80GB").tpu
    assert device_named("a100-80gb") is device_named("a100_80gb")
    assert device_named("rtx4090") is device_named("rtx_4090")
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


@pytest.mark.parametrize(
    ("maker_name", "name"),
    [
        ("NVIDIA A100-SXM4-40GB", "a100_40gb"),
        ("NVIDIA A100 80GB PCIe", "a100_80gb"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("Tesla P100-PCIE-16GB", "p100"),
        ("NVIDIA H100 SXM5 80GB", "h100"),
        ("Tesla T4", "t4"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA GeForce RTX 4090", "rtx_4090"),
        ("TPU v4", "tpu_v4"),
        ("v5litepod-8", "tpu_v5e"),
        ("v6e-8", "tpu_v6e"),
    ],
)
def test_a_device_is_known_by_its_makers_name(maker_name, name):
    assert peak_flops_of(maker_name) == DEVICES[name].peak_flops


@pytest.mark.parametrize(
    "maker_name",
    [
        "TPU",
        "v9-8",
        "NVIDIA L40S",
        "NVIDIA L40",
        "NVIDIA GeForce RTX 2080 Ti",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA T400 4GB",
        "NVIDIA H100 NVL",
        "NVIDIA H100 PCIe",
        "Tesla V100-PCIE-16GB",
        "Tesla V100-FHHL-16GB",
        "Tesla P100-SXM2-16GB",
        "None",
        "",
    ],
)
def test_a_device_that_is_not_in_the_table_has_no_peak(maker_name):
    assert peak_flops_of(maker_name) is None


def test_every_tpu_has_a_bandwidth_and_the_source_names_it():
    # Half of a chip's for a core of v2 and v3.
    for device in (device for device in DEVICES.values() if device.tpu):
        chip = device.bandwidth * device.cores / 1e9
        assert f", {chip:.0f} GB/s" in device.source
