"""The documented guarantees of an epoch's order, checked on record numbers alone."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np


def check_epoch(
    seen: np.ndarray, num_records: int, block_records: int, window_records: int
) -> None:
    """Raise unless `seen` holds each record once and whole blocks inside windows.

    Every window but the last has `window_records` records; a block (records that lie
    together) is never torn over two windows; a short last block is in the last one.
    """
    np.testing.assert_array_equal(np.sort(seen), np.arange(num_records))
    window_of = np.empty(num_records, int)
    window_of[seen] = np.arange(num_records) // window_records
    for first in range(0, num_records, block_records):
        assert len(set(window_of[first : first + block_records])) == 1
    assert window_of[-1] == window_of.max() or num_records % block_records == 0


def class_runs(labels: np.ndarray) -> float:
    """Mean length of runs of one class: 1 / (1 - 1/classes) when well mixed."""
    changes = np.count_nonzero(labels[1:] != labels[:-1])
    return len(labels) / (changes + 1)
