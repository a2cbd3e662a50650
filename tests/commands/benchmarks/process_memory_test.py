"""Memory of processes, compared with what was allocated."""
# SPDX-License-Identifier: Apache-2.0

import os

from vit_scaling.commands.benchmarks import process_memory


def _peak_after(mib: int) -> tuple[int, int]:
    before = process_memory.status_bytes("VmHWM")
    block = b"x" * (mib * 2**20)
    del block
    return os.getpid(), process_memory.status_bytes("VmHWM") - before


def test_the_peak_of_a_fresh_process_has_its_own_allocations_only():
    calls = [
        process_memory.call_in_fresh_process(_peak_after, mib) for mib in (300, 10)
    ]
    numbers, peaks = zip(*calls, strict=True)
    assert len({*numbers, os.getpid()}) == 3
    assert 290 * 2**20 < peaks[0] < 320 * 2**20
    assert peaks[1] < 20 * 2**20
