"""Records of a set, cut into blocks that are read and shuffled together."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools

import numpy as np

from vit_scaling.data.record_index import RecordIndex


@dataclasses.dataclass(frozen=True)
class BlockTable:
    """A selection of records, cut into blocks of `block_records` for reading.

    A block is read in runs: records that follow each other in one file. Everything is
    held as NumPy arrays: 8 bytes a record, and 28 a run.

    Args:
        paths: The files, bytes (files,).
        block_records: Records in every block but the last, which may have fewer.
        offsets: Byte offset of each selected record, int64 (records,).
        run_file: Row of `paths`, int64 (runs,).
        run_first: Position in the selection of the run's first record, int64 (runs,).
        run_number: Number in its file of the run's first record, int64 (runs,).
        block_run: First run of each block, and the number of runs, int64 (blocks + 1,).
        size_bytes: Of the selected records, frames included.
    """

    paths: np.ndarray
    block_records: int
    offsets: np.ndarray
    run_file: np.ndarray
    run_first: np.ndarray
    run_number: np.ndarray
    block_run: np.ndarray
    size_bytes: int

    @property
    def num_records(self) -> int:
        """How many records are selected."""
        return len(self.offsets)

    @functools.cached_property
    def num_blocks(self) -> int:
        """How many blocks they make."""
        return len(self.block_run) - 1


def make_block_table(
    index: RecordIndex,
    *,
    block_records: int,
    selected: np.ndarray | None = None,
    part: int = 0,
    parts: int = 1,
) -> BlockTable:
    """Cut one host's part of a set into blocks.

    The set is split into `parts` runs of records whose lengths differ by at most one,
    so any number of hosts reads any number of shards; each opens its own shards only.

    Args:
        index: The set.
        block_records: Records in a block: read together, shuffled as one.
        selected: Rising record numbers of a subset, int64; None is all.
        part: Which part, from 0.
        parts: Of how many (hosts).
    """
    total = index.num_records if selected is None else len(selected)
    first, end = (total * i // parts for i in (part, part + 1))
    offsets, run_file, run_first, run_number = [], [], [], []
    done = size_bytes = 0
    for number, start in enumerate(index.starts[:-1]):
        local = _select_in_shard(
            selected, first, end, int(start), int(index.counts[number])
        )
        if not len(local):
            continue
        position = np.arange(done, done + len(local))
        is_first = position % block_records == 0
        is_first[0] = True
        is_first[1:] |= np.diff(local) != 1
        rows = np.flatnonzero(is_first)
        boundaries = index.boundaries(number)
        offsets.append(boundaries[local])
        size_bytes += int((boundaries[local + 1] - boundaries[local]).sum())
        run_file.append(np.full(len(rows), number, np.int64))
        run_first.append(position[rows])
        run_number.append(local[rows] + index.shards[number].skip)
        done += len(local)
    firsts = _concatenate(run_first)
    first_of_block = np.arange(0, done, block_records)
    return BlockTable(
        paths=np.array([shard.path.encode() for shard in index.shards], object),
        block_records=block_records,
        offsets=_concatenate(offsets),
        run_file=_concatenate(run_file),
        run_first=firsts,
        run_number=_concatenate(run_number),
        block_run=np.append(np.searchsorted(firsts, first_of_block), len(firsts)),
        size_bytes=size_bytes,
    )


def _select_in_shard(
    selected: np.ndarray | None, first: int, end: int, start: int, count: int
) -> np.ndarray:
    """Return the record numbers, inside one shard, of a part of the selection."""
    if selected is None:
        low, high = max(first, start), min(end, start + count)
        return np.arange(low - start, max(low, high) - start)
    mine = selected[first:end]
    low, high = np.searchsorted(mine, [start, start + count])
    return mine[low:high] - start


def _concatenate(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
