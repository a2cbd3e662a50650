"""Time several programs in alternating rounds."""
# SPDX-License-Identifier: Apache-2.0

import time
from collections.abc import Callable, Mapping
from typing import Any


def time_alternating(
    programs: Mapping[str, Callable[[], Any]], *, rounds: int, warmup_rounds: int = 2
) -> dict[str, list[float]]:
    """Return the seconds of each program's calls; the programs alternate.

    Changes of the machine's clock or load so affect all programs alike.

    Args:
        programs: Functions by name; each returns when its work is done.
        rounds: Measured rounds.
        warmup_rounds: Rounds before these, which are not measured.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(warmup_rounds + rounds):
        for name, program in programs.items():
            start = time.perf_counter()
            program()
            if number >= warmup_rounds:
                seconds[name].append(time.perf_counter() - start)
    return seconds
