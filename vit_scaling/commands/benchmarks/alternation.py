"""Time several programs in alternating rounds, and compare them with a peer."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vit_scaling.checks import check_at_least

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def add_timing_flags(add: Callable[..., Any], *, rounds: int) -> None:
    """Add --rounds and --clock to a parser by its `add_argument`."""
    add("--rounds", type=int, default=rounds, help="measured rounds")
    add(
        "--clock",
        default="wall",
        choices=CLOCKS,
        help="time to count; a machine with other work needs processor time",
    )


def check_positive(arguments: argparse.Namespace, names: Sequence[str]) -> None:
    """Raise ValueError unless the flags of these names are at least 1."""
    check_at_least(1, **{f"--{name}": getattr(arguments, name) for name in names})


def time_alternating(
    programs: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    warmup_rounds: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return the seconds of each program's calls; the programs alternate.

    Changes of the machine's clock or load so affect all programs alike.

    Args:
        programs: Functions by name; each returns when its work is done.
        rounds: Measured rounds.
        warmup_rounds: Rounds before these, which are not measured.
        clock: Returns seconds; `time.process_time` counts all threads of this process
            and no other work on the machine.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(warmup_rounds + rounds):
        for name, program in programs.items():
            start = clock()
            program()
            if number >= warmup_rounds:
                seconds[name].append(clock() - start)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the minimum, median and maximum of measured values."""
    return {
        "min": float(np.min(values)),
        "median": float(np.median(values)),
        "max": float(np.max(values)),
    }


def ratio_spread(ours: Sequence[float], peers: Sequence[float]) -> dict[str, float]:
    """Return the spread of our seconds over a peer's, round by round.

    `of_minima` is the ratio of the shortest times, which other work on the machine
    affects least.
    """
    ratios = [float(x) for x in np.divide(ours, peers)]
    return {**spread(ratios), "of_minima": float(np.min(ours) / np.min(peers))}


def spread_text(values: Mapping[str, float], digits: int = 2) -> str:
    """Return "median (min to max)"."""
    low, middle, high = (f"{values[k]:.{digits}f}" for k in ("min", "median", "max"))
    return f"{middle} ({low} to {high})"
