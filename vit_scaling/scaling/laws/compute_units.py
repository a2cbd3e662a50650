"""Units of training compute, parsed from column names such as "gflops_total"."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import re

from vit_scaling.naming import did_you_mean

CORE_DAYS = "core_days"  # The paper's unit: days of one TPUv3 core.
FLOPS = "flops"
ACCEPTED_UNITS = (
    *("core_days", "flops", "gflops", "tflops", "pf_days", "macs", "gmacs"),
    *("gpu_hours", "gpu_days", "a100_hours", "tpuv4_core_days"),
)
_PREFIXES = {
    **{"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18},
    **{"z": 1e21, "y": 1e24},
}
_PREFIX = r"(?P<prefix>kilo|mega|giga|tera|peta|exa|zetta|yotta|[kmgtpezy])?_?"
# "PF-days" and "petaflop/s-days": operations at a constant rate for a day.
_RATE_DAYS = re.compile(rf"{_PREFIX}f(?:lops?)?_?s?_?days?")
_OPERATIONS = re.compile(rf"{_PREFIX}(?P<operation>flop|mac|multadd)s?")
_DEVICE_TIME = re.compile(
    r"(?P<device>tpu(?:_?v\d+[a-z]?)?|[a-z]{1,3}_?\d{1,4}[a-z]?(?:_\d+gb)?)?_?"
    r"(?:(?P<kind>core|gpu|cpu|chip|device)s?)?_?(?P<time>hour|day|h)s?"
)
# Other words change the meaning: "gflops_per_image", "log_flops", "forward_gmacs".
_NEUTRAL_WORDS = {
    *("compute", "total", "training", "train", "trained", "pretraining"),
    *("cost", "used", "spent", "budget", "in"),
}


@dataclasses.dataclass(frozen=True)
class ComputeUnit:
    """A unit of training compute.

    Attributes:
        name: Name in tables and flags, such as "gflops".
        quantity: What is measured: "FLOPs" or the time of one device. Units of one
            quantity differ by a factor; others cannot be converted.
        factor: FLOPs or device-days in one unit. A multiply-accumulate is two FLOPs.
        label: Name in figures and reports, such as "GFLOPs".
    """

    name: str
    quantity: str
    factor: float
    label: str


def find_unit(text: str) -> ComputeUnit | None:
    """Return the unit that `text` names; None if it names none, or something else too.

    A core-day without a device is the paper's: a day of one TPUv3 core.

    Example:
        >>> find_unit("gflops_total").label, find_unit("TPUv3 core days").name
        ('GFLOPs', 'core_days')
        >>> find_unit("gflops_per_image")
    """
    words = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_").split("_")
    unit = "_".join(word for word in words if word not in _NEUTRAL_WORDS)
    if match := _RATE_DAYS.fullmatch(unit):
        prefix = (match["prefix"] or "")[:1]
        factor = 86400 * _PREFIXES[prefix]
        return ComputeUnit(
            f"{prefix}f_days", "FLOPs", factor, f"{_shown(prefix)}F-days"
        )
    if match := _OPERATIONS.fullmatch(unit):
        prefix = (match["prefix"] or "")[:1]
        operation, count = ("FLOPs", 1) if match["operation"] == "flop" else ("MACs", 2)
        name, label = f"{prefix}{operation.lower()}", f"{_shown(prefix)}{operation}"
        return ComputeUnit(name, "FLOPs", count * _PREFIXES[prefix], label)
    match = _DEVICE_TIME.fullmatch(unit)
    if match and (match["device"] or match["kind"]):
        return _device_time(
            (match["device"] or "").replace("tpu_", "tpu"),
            match["kind"] or "",
            match["time"],
        )
    return None


def _shown(prefix: str) -> str:
    return prefix if prefix == "k" else prefix.upper()


def _device_time(device: str, kind: str, time: str) -> ComputeUnit:
    period, days = ("days", 1.0) if time == "day" else ("hours", 1 / 24)
    if re.fullmatch(r"v\d[a-z]?", device):
        device = f"tpu{device}"
    if kind == "gpu" and device:
        kind = ""  # "A100 GPU hours" are A100 hours.
    if (device, kind, period) == ("", "core", "days"):
        device = "tpuv3"
    shown = device.upper().replace("TPUV", "TPUv").replace("_", " ")
    kind_shown = kind.upper() if kind in ("gpu", "cpu") else kind
    label = " ".join(word for word in (shown, kind_shown) if word)
    name = "_".join(word for word in (device, kind, period) if word)
    return ComputeUnit(
        "core_days" if name == "tpuv3_core_days" else name,
        f"{label} time",
        days,
        f"{label}-{period}",
    )


def parse_unit(
    text: str, *, name: str = "unit", flag: str = "compute_unit"
) -> ComputeUnit:
    """Return the unit of a text.

    Args:
        text: As `find_unit` takes it.
        name: What the text is, for the error message.
        flag: The flag that takes a unit, for the error message.

    Raises:
        ValueError: No unit is known by this name.
    """
    unit = find_unit(text)
    if unit is None:
        raise ValueError(
            f"The unit of compute in {name} {text!r} is not known."
            f"{did_you_mean(text, ACCEPTED_UNITS)} Give --{flag}, such as "
            f"{', '.join(ACCEPTED_UNITS)}."
        )
    return unit
