"""Accelerators: memory, peak rate, bandwidth and the source of these numbers."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import re
from typing import Any

from vit_scaling.naming import unknown_name_message

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Device:
    """The device of one data-parallel replica: a TPU core (v2, v3) or chip, or a GPU.

    Attributes:
        name: Name on the command line.
        memory_bytes: Memory that a program can use.
        peak_flops: Dense bfloat16 (float16 on V100) operations per second; None if
            only the memory is known.
        tpu: Whether arrays are laid out in tiles of 8 × 128.
        cores: Replicas in a unit that is billed, such as 2 cores on a TPUv3 chip.
        source: Source of these numbers.
        bandwidth: Bytes per second to and from the memory; None if not known.
        interconnect: Bytes per second that a chip sends to others over all its links,
            in an all-reduce; None if not known.
        pod_chips: Chips that these links connect at most; None if not known.
        on_chip_bytes: Bytes of a step's temporaries that the compiler keeps in the
            vector memory: 64 MiB of a v4 or v5e, fitted to compiled programs.
    """

    name: str
    memory_bytes: float
    peak_flops: float | None
    tpu: bool
    cores: int
    source: str
    bandwidth: float | None = None
    interconnect: float | None = None
    pod_chips: int | None = None
    on_chip_bytes: int = 0

    @property
    def layout(self) -> dict[str, Any]:
        """The fields of a `Step` that depend on the device."""
        return {"tpu": self.tpu, "on_chip_bytes": self.on_chip_bytes}


# One page per version; for v2 the numbers are those that Google announced.
_TPU = "https://docs.cloud.google.com/tpu/docs/"
# Dense float16 or bfloat16 with tensor cores, sums in float32, no sparsity.
_NV = "NVIDIA"
# fmt: off
# Name, usable memory, peak operations per second, TPU, replicas in a chip, source (its
# numbers are per chip), bandwidth (from the same pages and sheets; TPU v2: Jouppi et
# al., CACM 63(7), 2020), interconnect and the chips that it connects. For TPUs this is
# the all-reduce bandwidth of a pod over its chips (v2: four links of 496 Gbit/s, v5p:
# half of the bidirectional rate), for GPUs one direction of NVLink (or of PCIe 4.0 x16:
# L4, RTX 4090) among the 8 of a host. A TPU v2 or v3 chip is two cores with half of
# each number. TPU memory is the limit that the compiler reports for a program that does
# not fit. For GPUs about half a GiB, an estimate, is subtracted for driver and context.
# Where the bandwidths of GPUs were read again: A100, glennklockwood.com, garden of
# processors (it cites the datasheet); H100 SXM, Scaleway on NVLink; H200, aiwiki.ai;
# T4, sysrqmts.com; L4, grokipedia.com; V100, io-tech.fi; A10G, a catalogue of RajBhope
# on huggingface.co. All agree. P100 and the RTX cards were not looked up again.
DEVICES = {row.name: row for row in (
    Device("tpu_v2", 7.48 * GIB, 22.5e12, True, 2,
           "Google, 2017: 16 GiB, 45 TFLOP/s, 700 GB/s", 350e9, 248e9, 256),
    Device("tpu_v3", 15.48 * GIB, 61.5e12, True, 2,
           f"{_TPU}v3: 32 GiB, 123 TFLOP/s, 900 GB/s", 450e9, 340e12 / 1024, 1024),
    Device("tpu_v4", 30.75 * GIB, 275e12, True, 1,
           f"{_TPU}v4: 32 GiB, 275 TFLOP/s, 1200 GB/s", 1200e9, 1.1e15 / 4096, 4096,
           64 * 2**20),
    Device("tpu_v5e", 15.75 * GIB, 197e12, True, 1,
           f"{_TPU}v5e: 16 GB, 197 TFLOP/s, 819 GB/s", 819e9, 51.2e12 / 256, 256,
           64 * 2**20),
    Device("tpu_v5p", 95.74 * GIB, 459e12, True, 1,
           f"{_TPU}v5p: 95 GB, 459 TFLOP/s, 2765 GB/s", 2765e9, 600e9, 8960),
    Device("tpu_v6e", 31.25 * GIB, 918e12, True, 1,
           f"{_TPU}v6e: 32 GB, 918 TFLOP/s, 1638 GB/s", 1638e9, 102.4e12 / 256, 256),
    Device("p100", 15.5 * GIB, 18.7e12, False, 1, f"{_NV} P100 PCIe datasheet (2016)",
           732e9),
    Device("v100", 15.5 * GIB, 125e12, False, 1, f"{_NV} V100 SXM2 datasheet (2018)",
           900e9),
    Device("v100_32gb", 31.3 * GIB, 125e12, False, 1, f"{_NV} V100 SXM2 datasheet",
           900e9),
    Device("t4", 14.6 * GIB, 65e12, False, 1, f"{_NV} T4 datasheet: 16 GB",
           320e9),
    Device("l4", 22.0 * GIB, 121e12, False, 1, f"{_NV} L4 datasheet: 24 GB",
           300e9, 32e9, 8),
    Device("a10g", 22.0 * GIB, 70e12, False, 1, f"{_NV} A10G, Amazon EC2 G5: 24 GB",
           600e9),
    Device("a100_40gb", 39.0 * GIB, 312e12, False, 1, f"{_NV} A100 datasheet 1758950",
           1555e9, 300e9, 8),
    Device("a100_80gb", 78.5 * GIB, 312e12, False, 1, f"{_NV} A100 datasheet 1758950",
           2039e9, 300e9, 8),
    Device("h100", 78.5 * GIB, 989e12, False, 1, f"{_NV} H100 SXM datasheet: 80 GB",
           3350e9, 450e9, 8),
    Device("h200", 139.0 * GIB, 989e12, False, 1, f"{_NV} H200 SXM datasheet: 141 GB",
           4800e9, 450e9, 8),
    Device("rtx_3090", 23.3 * GIB, 71e12, False, 1, f"{_NV} GA102 white paper: 24 GB",
           936e9),
    Device("rtx_4090", 23.3 * GIB, 165e12, False, 1, f"{_NV} Ada white paper: 24 GB",
           1008e9, 32e9, 8),
)}
# fmt: on


# Words in the product names of chips with another rate, which the table lacks.
_OTHER_CHIPS = frozenset({"ti", "super", "d", "laptop", "mobile", "nvl", "mig", "fhhl"})


def normalized(name: str) -> str:
    """Return a device's name in this table's spelling.

    >>> normalized("A100-80GB"), normalized("rtx4090")
    ('a100_80gb', 'rtx_4090')
    """
    return re.sub("^rtx(?=[0-9])", "rtx_", name.lower().replace("-", "_"))


def device_named(name: str) -> Device:
    """Return a device by name, or a GPU with the given memory such as "24GiB".

    Raises:
        ValueError: `name` is neither; the message suggests the nearest device.
    """
    text = str(name).strip()
    if (known := DEVICES.get(normalized(text))) is not None:
        return known
    size = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*(gib|gb)?", text.lower())
    if size and float(size.group(1)) > 0:
        unit = 1e9 if size.group(2) == "gb" else GIB
        memory = float(size.group(1)) * unit
        return Device(text, memory, None, False, 1, "the size given")
    raise ValueError(
        f"{unknown_name_message('device', name, DEVICES)} A size works too, "
        "such as 24GiB."
    )


def peak_flops_of(maker_name: str) -> float | None:
    """Return the peak rate of a replica by its manufacturer's name, None if unknown.

    All words of a row's name must occur as whole words: "L40S" is not "L4". A card of
    another form factor than the row's source (PCIe instead of SXM) is unknown.

    Args:
        maker_name: A name such as "NVIDIA A100-SXM4-40GB", "Tesla T4" or "v3-8".

    >>> peak_flops_of("NVIDIA A100-SXM4-80GB") == DEVICES["a100_80gb"].peak_flops
    True
    >>> peak_flops_of("v3-8"), peak_flops_of("Riva 128")
    (61500000000000.0, None)
    """
    tpu = re.match(r"v(\d+)(?:lite(?:pod)?|([ep]))?-\d+$", maker_name.lower())
    if tpu:  # v5litepod-8 is v5e.
        version = {"5": "5e"}.get(tpu[1], tpu[1]) if not tpu[2] else tpu[1] + tpu[2]
        device = DEVICES.get(f"tpu_v{version}")
        return device.peak_flops if device else None
    words = set(re.findall(r"[a-z0-9]+", maker_name.lower()))
    if words & _OTHER_CHIPS:
        return None
    names = [name for name in DEVICES if words.issuperset(name.split("_"))]
    if not names or _has_other_form_factor(words, DEVICES[names[-1]].source.lower()):
        return None
    return DEVICES[names[-1]].peak_flops


def _has_other_form_factor(words: set[str], source: str) -> bool:
    sxm = any(word.startswith("sxm") for word in words)
    return ("pcie" in words and "sxm" in source) or (sxm and "pcie" in source)
