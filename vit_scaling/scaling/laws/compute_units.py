"""Units of compute in names of columns, cells and flags: FLOPs or core-days."""
# SPDX-License-Identifier: Apache-2.0

import re
from typing import NamedTuple

CORE_DAYS = "core_days"  # The paper's unit: days of one TPUv3 core.
FLOPS = "flops"
COMPUTE_UNITS = (CORE_DAYS, FLOPS)
KNOWN = (
    "core_days (of a TPUv3), core_hours, flops, macs, each of the last two with a "
    "prefix from k to z (gflops, gmacs), and pf_days"
)

_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15}
_PREFIXES |= {"e": 1e18, "z": 1e21}
_LONG_PREFIXES = {"kilo": "k", "mega": "m", "giga": "g", "tera": "t", "peta": "p"}
_LONG_PREFIXES |= {"exa": "e", "zetta": "z"}
_OPERATION = r"(?:flops?|macs?|multadds?)"
_PREFIX = rf"({'|'.join([*_LONG_PREFIXES, *filter(None, _PREFIXES)])})?"
_SECONDS_PER_DAY = 86_400.0


class ComputeUnit(NamedTuple):
    """A unit of compute.

    Attributes:
        unit: The unit that values are converted to, of `COMPUTE_UNITS`.
        factor: What a value is multiplied by.
    """

    unit: str
    factor: float


def find_unit(text: str) -> ComputeUnit | None:
    """Return the unit that a text such as "gmacs_total" or "PF-days" names, if any.

    A multiply-accumulate counts as two operations. Hours and days of other devices than
    a TPUv3 core are not known: their operations depend on how busy the device was.

    Example:
        >>> find_unit("gflops_total")
        ComputeUnit(unit='flops', factor=1000000000.0)
    """
    words = re.sub(r"[\s_\-/().\[\]]+", " ", text.lower()).strip()
    joined = words.replace(" ", "")
    device_time = re.search(r"core(day|hour)s?", joined)
    if device_time and not re.search(r"gpu|[ahv]\d{2,3}|v[24568]", joined):
        return ComputeUnit(CORE_DAYS, 1.0 if device_time[1] == "day" else 1 / 24)
    days = re.search(rf"{_PREFIX}(?:f|{_OPERATION})s?(day|hour)s?$", joined)
    if days:
        seconds = _SECONDS_PER_DAY / (1 if days[2] == "day" else 24)
        return ComputeUnit(FLOPS, _factor(days[1]) * seconds)
    for word in words.split():
        match = re.fullmatch(rf"{_PREFIX}{_OPERATION}", word)
        if match:
            operations = 1.0 if "flop" in word else 2.0
            return ComputeUnit(FLOPS, _factor(match[1]) * operations)
    return None


def parse_unit(text: str, *, name: str) -> ComputeUnit:
    """Return the unit of a text.

    Args:
        text: As `find_unit` takes it.
        name: What the text is, for the error message.

    Raises:
        ValueError: No unit is known by this name.
    """
    unit = find_unit(text)
    if unit is None:
        raise ValueError(
            f"The unit of compute in {name} {text!r} is not known. Known are {KNOWN}; "
            "convert the column to one of them, and name it with --compute_unit."
        )
    return unit


def _factor(prefix: str | None) -> float:
    prefix = prefix or ""
    return _PREFIXES[_LONG_PREFIXES.get(prefix, prefix)]
