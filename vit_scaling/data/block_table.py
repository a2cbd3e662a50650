"""Records of a set, cut into blocks that are read and shuffled together."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

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


def make_block_table(
    index: RecordIndex,
    *,
    block_records: int,
    selected: np.ndarray | None = None,
    part: int = 0,
    parts: int = 1,
) -> BlockTable:
    """Cut one host's part of a set into blocks.

    The parts are consecutive records, and their lengths differ by at most one, so any
    number of hosts reads any number of shards. Each host opens its own shards only.

    Args:
        index: The set.
        block_records: Records in a block, which are read together.
        selected: Increasing record numbers of a subset, int64; None is all.
        part: Number of the part, from 0.
        parts: Number of parts (hosts).
    """
    total = index.num_records if selected is None else len(selected)
    first, end = (total * i // parts for i in (part, part + 1))
    records = np.arange(first, end) if selected is None else selected[first:end]
    # The records of shard i are records[edges[i]:edges[i + 1]].
    edges = np.searchsorted(records, index.starts)
    offsets, sizes = np.zeros((2, len(records)), np.int64)

    def fill(shard: int) -> None:
        rows = slice(edges[shard], edges[shard + 1])
        numbers = records[rows] - index.starts[shard]
        boundaries = index.boundaries(shard)
        offsets[rows] = boundaries[numbers]
        sizes[rows] = boundaries[numbers + 1] - boundaries[numbers]

    map_in_threads(fill, np.flatnonzero(np.diff(edges)).tolist())
    # A run starts at the start of a block or of a shard, and after records left out.
    starts_run = np.arange(len(records)) % block_records == 0
    starts_run[edges[edges < len(records)]] = True
    starts_run[1:] |= np.diff(records) != 1
    run_first = np.flatnonzero(starts_run)
    run_file = np.searchsorted(edges, run_first, side="right") - 1
    skipped = np.array([shard.skip for shard in index.shards], np.int64)
    first_of_block = np.arange(0, len(records), block_records)
    return BlockTable(
        paths=np.array([shard.path.encode() for shard in index.shards], object),
        block_records=block_records,
        offsets=offsets,
        run_file=run_file,
        run_first=run_first,
        run_number=records[run_first] - index.starts[run_file] + skipped[run_file],
        run_bytes=np.add.reduceat(sizes, run_first) if len(records) else sizes,
        block_run=np.append(np.searchsorted(run_first, first_of_block), len(run_first)),
    )
