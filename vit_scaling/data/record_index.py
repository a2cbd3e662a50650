"""Where every record of a sharded set lies, so that reading may start anywhere."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import hashlib
import logging
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vit_scaling.data import record_framing

_logger = logging.getLogger(__name__)
INDEX_FOLDER = "index"  # Beside the shards: <shard>.offsets.npy


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file, or a range of its records.

    Args:
        path: The file.
        skip: How many records at its front do not belong to the set.
        take: How many records after those do; None is all.
        records: How many records the whole file must have; None is unknown.
        size_bytes: The size that the file must have; None is unknown.
    """

    path: str
    skip: int = 0
    take: int | None = None
    records: int | None = None
    size_bytes: int | None = None


class RecordIndex:
    """The byte offset of every record of a list of shards.

    Offsets come from the index files that the writer leaves beside the shards. For sets
    written by others they are found once, by reading the 12-byte headers, and kept in
    such files (in a cache folder where the set's own folder is not writable).

    Args:
        shards: The files, in the order that numbers the records.
        on_bad_record: "stop" raises for a truncated or damaged file; "skip" uses the
            records in front of the damage, with a warning.

    Raises:
        FileNotFoundError: A shard is missing.
        ValueError: A shard is damaged, compressed, empty though no manifest says so, or
            not what the manifest says.
    """

    def __init__(self, shards: Sequence[Shard], *, on_bad_record: str = "stop") -> None:
        self.shards = tuple(shards)
        self.on_bad_record = on_bad_record
        self.counts = np.array([self._count(shard) for shard in self.shards], np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        self._check_empty()

    @property
    def num_records(self) -> int:
        """How many records the set has."""
        return int(self.starts[-1])

    def offsets(self, number: int) -> np.ndarray:
        """Return where the records of shard `number` start, int64 (records,)."""
        return self.edges(number)[:-1]

    def edges(self, number: int) -> np.ndarray:
        """Return the offsets of shard `number` and its end, int64 (records + 1,).

        Raises:
            ValueError: It has fewer records than are known of it.
        """
        shard, count = self.shards[number], int(self.counts[number])
        whole = _offsets(shard, self.on_bad_record)
        if len(whole) <= shard.skip + count:
            raise ValueError(
                f"{shard.path}, record {len(whole) - 1}: the file ends, but must have "
                f"{shard.records} records; write it again."
            )
        return whole[shard.skip : shard.skip + count + 1].astype(np.int64)

    def locate(self, record: int) -> tuple[str, int]:
        """Return the file of a record and its number in that file."""
        number = int(np.searchsorted(self.starts, record, side="right")) - 1
        shard = self.shards[number]
        return shard.path, int(record - self.starts[number]) + shard.skip

    def _count(self, shard: Shard) -> int:
        records = shard.records
        if records is None or not self._size_is_right(shard):
            records = len(_offsets(shard, self.on_bad_record)) - 1
        elif self.on_bad_record != "stop" and shard.size_bytes is None:
            # As TFDS knows it: no size tells whether the file is whole.
            records = min(records, len(_offsets(shard, self.on_bad_record)) - 1)
        left = max(0, records - shard.skip)
        return left if shard.take is None else min(left, shard.take)

    def _check_empty(self) -> None:
        """Name empty files that no manifest says are empty: half-written ones, say."""
        paths = [
            shard.path
            for shard, count in zip(self.shards, self.counts, strict=True)
            if not count and shard.records is None and not file_size(shard.path)
        ]
        if paths and self.num_records:
            refuse_or_warn(
                f"{paths[0]} has 0 bytes, so no record 0 ({len(paths)} such files of "
                f"{len(self.shards)}); write it again, or leave it out of the pattern.",
                self.on_bad_record,
            )

    def _size_is_right(self, shard: Shard) -> bool:
        if shard.size_bytes is None:
            return True
        size = file_size(shard.path)
        if size == shard.size_bytes:
            return True
        text = (
            f"{shard.path} has {size} bytes, but its manifest says {shard.size_bytes}; "
            "write that shard again, or run tools/verify_tfrecords.py on the set."
        )
        refuse_or_warn(text, self.on_bad_record)
        return False


def refuse_or_warn(text: str, on_bad_record: str) -> None:
    """Raise under "stop", log a warning under "skip".

    Raises:
        ValueError: The policy is "stop".
    """
    if on_bad_record == "stop":
        raise ValueError(text)
    _logger.warning("%s Going on with what can be read.", text)


def file_size(path: str) -> int:
    """Return a file's size in bytes.

    Raises:
        FileNotFoundError: There is none.
    """
    try:
        return int(tf.io.gfile.stat(path).length)
    except tf.errors.NotFoundError:
        raise FileNotFoundError(f"The shard {path} does not exist.") from None


def _offsets(shard: Shard, on_bad_record: str) -> np.ndarray:
    """Return the offsets of a whole file, and its end, from its index file if fresh."""
    size = file_size(shard.path)
    for place in side_files(shard.path, "offsets"):
        offsets = _load(place)
        if offsets is not None and len(offsets) and int(offsets[-1]) == size:
            return offsets
    with open_file(shard.path) as file:
        offsets, problem = record_framing.scan(file, size)
    if problem:
        text = f"{shard.path}, record {len(offsets) - 1}: {problem}."
        refuse_or_warn(text, on_bad_record)
        return offsets
    store(shard.path, "offsets", offsets)
    return offsets


def open_file(path: str) -> Any:
    """Open a file for reading bytes: the system's way if it is local."""
    return open(path, "rb") if os.path.exists(path) else tf.io.gfile.GFile(path, "rb")


def read_bytes(path: str, offset: int, length: int) -> bytes:
    """Return `length` bytes of a file from `offset` on."""
    with open_file(path) as file:
        file.seek(offset)
        return file.read(length)


def side_files(path: str, kind: str) -> list[str]:
    """Return where the index file of a shard may lie: beside it, or in the cache."""
    folder, name = os.path.split(path)
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    unique = hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:16]
    return [
        os.path.join(folder, INDEX_FOLDER, f"{name}.{kind}.npy"),
        os.path.join(cache, "vit_scaling", INDEX_FOLDER, f"{unique}.{kind}.npy"),
    ]


def _load(place: str) -> np.ndarray | None:
    if not tf.io.gfile.exists(place):
        return None
    with tf.io.gfile.GFile(place, "rb") as file:
        try:
            return np.load(file, allow_pickle=False)
        except (ValueError, EOFError):  # A half-written file is found again.
            return None


def store(path: str, kind: str, values: np.ndarray) -> str | None:
    """Keep an index file of a shard; return where, or None if nowhere is writable."""
    for place in side_files(path, kind):
        part = f"{place}.{os.getpid()}.part"
        try:
            tf.io.gfile.makedirs(os.path.dirname(place))
            with tf.io.gfile.GFile(part, "wb") as file:
                np.save(file, values)
            tf.io.gfile.rename(part, place, overwrite=True)
        except (OSError, tf.errors.OpError):
            continue
        return place
    return None


def keys_kind(key: str, size_bytes: int) -> str:
    """Return the kind of the side file with a shard's hashes of keys.

    It says of which feature they are, and of which size of the file: those of another
    feature, or of a file that was since written anew, are not taken.
    """
    return f"keys-{hashlib.sha256(key.encode()).hexdigest()[:8]}-{size_bytes}"


def cached(path: str, kinds: Sequence[str], length: int) -> np.ndarray | None:
    """Return the values of the first side file with `length` rows; None: none has."""
    for kind in kinds:
        for place in side_files(path, kind):
            values = _load(place)
            if values is not None and len(values) == length:
                return values
    return None


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


def block_table(
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
        local = _local(selected, first, end, int(start), int(index.counts[number]))
        if not len(local):
            continue
        position = np.arange(done, done + len(local))
        is_first = position % block_records == 0
        is_first[0] = True
        is_first[1:] |= np.diff(local) != 1
        rows = np.flatnonzero(is_first)
        edges = index.edges(number)
        offsets.append(edges[local])
        size_bytes += int((edges[local + 1] - edges[local]).sum())
        run_file.append(np.full(len(rows), number, np.int64))
        run_first.append(position[rows])
        run_number.append(local[rows] + index.shards[number].skip)
        done += len(local)
    firsts = _joined(run_first)
    first_of_block = np.arange(0, done, block_records)
    return BlockTable(
        paths=np.array([shard.path.encode() for shard in index.shards], object),
        block_records=block_records,
        offsets=_joined(offsets),
        run_file=_joined(run_file),
        run_first=firsts,
        run_number=_joined(run_number),
        block_run=np.append(np.searchsorted(firsts, first_of_block), len(firsts)),
        size_bytes=size_bytes,
    )


def _local(
    selected: np.ndarray | None, first: int, end: int, start: int, count: int
) -> np.ndarray:
    """Return the record numbers, inside one shard, of a part of the selection."""
    if selected is None:
        low, high = max(first, start), min(end, start + count)
        return np.arange(low - start, max(low, high) - start)
    mine = selected[first:end]
    low, high = np.searchsorted(mine, [start, start + count])
    return mine[low:high] - start


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
