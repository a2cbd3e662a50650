"""Records of a set, cut into blocks that are read and shuffled together."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from typing import Protocol

import numpy as np

from vit_scaling.data.record_index import RecordIndex
from vit_scaling.io_files import map_in_threads


@dataclasses.dataclass(frozen=True)
class BlockTable:
    """A selection of records, cut into blocks of `block_records` for reading.

    A block is read in runs of adjacent records of one file. The NumPy arrays take 8
    bytes per record and 36 per run.

    Args:
        paths: The files, bytes (files,).
        block_records: Records in every block but the last, which may have fewer.
        offsets: Byte offset of each selected record, int64 (records,).
        run_file: Row of `paths`, int64 (runs,).
        run_first: Position in the selection of the run's first record, int64 (runs,).
        run_number: Number in its file of the run's first record, int64 (runs,).
        run_bytes: Size of the run's records with their frames, int64 (runs,).
        block_run: First run of each block, and the number of runs, int64 (blocks + 1,).
    """

    paths: np.ndarray
    block_records: int
    offsets: np.ndarray
    run_file: np.ndarray
    run_first: np.ndarray
    run_number: np.ndarray
    run_bytes: np.ndarray
    block_run: np.ndarray

    @property
    def num_records(self) -> int:
        """Number of selected records."""
        return len(self.offsets)

    @property
    def size_bytes(self) -> int:
        """Size of the selected records with their frames."""
        return int(self.run_bytes.sum())

    @property
    def num_blocks(self) -> int:
        """Number of blocks."""
        return len(self.block_run) - 1


class Selection(Protocol):
    """Some of a set's records, e.g. a `Subset`."""

    @property
    def counts(self) -> np.ndarray:
        """Number of records of each shard, int64 (shards,)."""

    def rows(self, shard: int) -> np.ndarray:
        """Return the increasing numbers of the selected records of a shard."""


def make_block_table(
    index: RecordIndex,
    *,
    block_records: int,
    selected: Selection | None = None,
    part: int = 0,
    parts: int = 1,
) -> BlockTable:
    """Cut one host's part of a set into blocks.

    The parts are consecutive records, and their lengths differ by at most one, so any
    number of hosts reads any number of shards. Each host opens its own shards only.

    Args:
        index: The set.
        block_records: Records in a block, which are read together.
        selected: The records to use; None is all.
        part: Number of the part, from 0.
        parts: Number of parts (hosts).
    """
    counts = index.counts if selected is None else selected.counts
    starts = np.concatenate([[0], np.cumsum(counts)])
    first, end = (int(starts[-1]) * i // parts for i in (part, part + 1))
    # Shard i has the rows edges[i] to edges[i + 1] of the table.
    edges = np.clip(starts, first, end) - first
    numbers, offsets, sizes = np.zeros((3, end - first), np.int64)

    def fill(shard: int) -> None:
        rows = slice(edges[shard], edges[shard + 1])
        skip = int(max(0, first - starts[shard]))
        chosen = slice(skip, skip + rows.stop - rows.start)
        all_rows = (
            np.arange(counts[shard]) if selected is None else selected.rows(shard)
        )
        numbers[rows] = all_rows[chosen]
        boundaries = index.boundaries(shard)
        offsets[rows] = boundaries[numbers[rows]]
        sizes[rows] = boundaries[numbers[rows] + 1] - offsets[rows]

    map_in_threads(fill, np.flatnonzero(np.diff(edges)).tolist())
    # A run starts at the start of a block or of a shard, and after records left out.
    starts_run = np.arange(len(offsets)) % block_records == 0
    starts_run[edges[edges < len(offsets)]] = True
    starts_run[1:] |= np.diff(numbers) != 1
    run_first = np.flatnonzero(starts_run)
    run_file = np.searchsorted(edges, run_first, side="right") - 1
    skipped = np.array([shard.skip for shard in index.shards], np.int64)
    first_of_block = np.arange(0, len(offsets), block_records)
    return BlockTable(
        paths=np.array([shard.path.encode() for shard in index.shards], object),
        block_records=block_records,
        offsets=offsets,
        run_file=run_file,
        run_first=run_first,
        run_number=numbers[run_first] + skipped[run_file],
        run_bytes=np.add.reduceat(sizes, run_first) if len(sizes) else sizes,
        block_run=np.append(np.searchsorted(run_first, first_of_block), len(run_first)),
    )
