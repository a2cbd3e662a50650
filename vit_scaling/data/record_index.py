"""The position of every record of a sharded set, so that reading can start anywhere."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import logging
from collections.abc import Iterator, Sequence

import numpy as np

from vit_scaling.data import record_files, sidecar_files
from vit_scaling.data.record_files import file_size
from vit_scaling.io_files import map_in_threads

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """One TFRecord file, or a range of its records.

    Args:
        path: The file.
        skip: Number of records at the file's start that are not part of the set.
        take: Number of records after those that are; None is all.
        records: Number of records that the file must have; None if unknown.
        size_bytes: Size that the file must have; None if unknown.
        classes: Number of classes of the set that has the file; None if unknown.
    """

    path: str
    skip: int = 0
    take: int | None = None
    records: int | None = None
    size_bytes: int | None = None
    classes: int | None = None


class RecordIndex:
    """The byte offset of every record of a list of shards.

    Offsets come from the sidecar files that the writer stores with the shards. For
    other sets they are computed once, from the 12-byte headers, and stored in such
    files (in a cache folder if the set's own folder is not writable). A shard whose
    count the manifest says takes one look-up; many are looked up at the same time.

    Args:
        shards: The files; their order numbers the records.
        on_bad_record: "stop" raises for a truncated or damaged file; "skip" uses the
            records before the damage and logs a warning.

    Raises:
        FileNotFoundError: A shard is missing.
        ValueError: A shard is damaged or compressed, differs from the manifest, or is
            empty although no manifest says so.
    """

    def __init__(self, shards: Sequence[Shard], *, on_bad_record: str = "stop") -> None:
        self.shards = tuple(shards)
        self.on_bad_record = on_bad_record
        self.counts = np.array(map_in_threads(self._count, self.shards), np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])
        self._check_empty_files()

    @property
    def num_records(self) -> int:
        """Number of records of the set."""
        return int(self.starts[-1])

    def offsets(self, shard: int) -> np.ndarray:
        """Return where the records of a shard start, int64 (records,)."""
        return self.boundaries(shard)[:-1]

    def boundaries(self, shard: int) -> np.ndarray:
        """Return the offsets of a shard's records and their end, int64 (records + 1,).

        Raises:
            ValueError: The file has fewer records than it must have.
        """
        row, count = self.shards[shard], int(self.counts[shard])
        # A size that the manifest says has been compared with the file's.
        size = row.size_bytes if self.on_bad_record == "stop" else None
        offsets = _file_offsets(row.path, self.on_bad_record, size)
        if len(offsets) <= row.skip + count:
            raise ValueError(
                f"{row.path}, record {len(offsets) - 1}: the file ends, but must have "
                f"{row.records} records; write it again."
            )
        return offsets[row.skip : row.skip + count + 1].astype(np.int64)

    def locate(self, record: int) -> tuple[str, int]:
        """Return the file of a record and the record's number in that file."""
        number = self.shard_of(record)
        shard = self.shards[number]
        return shard.path, int(record - self.starts[number]) + shard.skip

    def describe(self, record: int) -> str:
        """Return `PATH, record N` for messages."""
        path, number = self.locate(record)
        return f"{path}, record {number}"

    def read_record(self, record: int) -> bytes:
        """Return the data of one record.

        Raises:
            ValueError: A checksum of the record fails.
        """
        shard = self.shard_of(record)
        offset = _recent_offsets(self, shard)[record - self.starts[shard]]
        (data,) = record_files.read_payloads(self.shards[shard].path, [int(offset)])
        if data is None:
            raise ValueError(record_files.CHECKSUM_FAILS)
        return data

    def read_records(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number and the data of every record.

        Raises:
            ValueError: A checksum of a record fails; the message names the record.
        """
        for shard, start in zip(range(len(self.shards)), self.starts, strict=False):
            offsets = self.offsets(shard).tolist()
            payloads = record_files.read_payloads(self.shards[shard].path, offsets)
            for record, data in enumerate(payloads, int(start)):
                if data is None:
                    raise ValueError(
                        f"{self.describe(record)}: {record_files.CHECKSUM_FAILS}."
                    )
                yield record, data

    def shard_of(self, record: int) -> int:
        """Return the number of the shard that has a record."""
        return int(np.searchsorted(self.starts, record, side="right")) - 1

    def _count(self, shard: Shard) -> int:
        records = shard.records
        if records is None or not self._has_expected_size(shard):
            records = len(_file_offsets(shard.path, self.on_bad_record)) - 1
        elif self.on_bad_record != "stop" and shard.size_bytes is None:
            # TFDS records no sizes, which would show a truncated file.
            offsets = _file_offsets(shard.path, self.on_bad_record)
            records = min(records, len(offsets) - 1)
        remaining = max(0, records - shard.skip)
        return remaining if shard.take is None else min(remaining, shard.take)

    def _check_empty_files(self) -> None:
        """Report empty files that no manifest lists as empty, e.g. half-written."""
        paths = [
            shard.path
            for shard, count in zip(self.shards, self.counts, strict=True)
            if not count and shard.records is None and not file_size(shard.path)
        ]
        if paths and self.num_records:
            raise_or_warn(
                f"{paths[0]} has 0 bytes, so no record 0 ({len(paths)} such files of "
                f"{len(self.shards)}); write it again, or leave it out of the pattern.",
                self.on_bad_record,
            )

    def _has_expected_size(self, shard: Shard) -> bool:
        if shard.size_bytes is None:
            return True
        size = file_size(shard.path)
        if size != shard.size_bytes:
            raise_or_warn(
                f"{shard.path} has {size} bytes, but its manifest says "
                f"{shard.size_bytes}; write that shard again, or run "
                "vit-scaling data verify on the set.",
                self.on_bad_record,
            )
        return size == shard.size_bytes


def raise_or_warn(text: str, on_bad_record: str) -> None:
    """Raise ValueError if the policy is "stop", else log a warning."""
    if on_bad_record == "stop":
        raise ValueError(text)
    _logger.warning("%s Continuing with the readable records.", text)


@functools.lru_cache(maxsize=256)
def _recent_offsets(index: RecordIndex, shard: int) -> np.ndarray:
    return index.offsets(shard)


def _file_offsets(path: str, on_bad_record: str, size: int | None = None) -> np.ndarray:
    """Return the offsets of a complete file and its end, from its sidecar if valid."""
    size = file_size(path) if size is None else size
    for offsets in sidecar_files.read_sidecars(path, sidecar_files.OFFSETS):
        if len(offsets) and int(offsets[-1]) == size:
            return offsets
    with record_files.open_file(path) as file:
        offsets, problem = record_files.scan_offsets(file, size)
    if problem:
        raise_or_warn(f"{path}, record {len(offsets) - 1}: {problem}.", on_bad_record)
    else:
        sidecar_files.write_sidecar(path, sidecar_files.OFFSETS, offsets)
    return offsets
