"""Nested subsets, whose members are chosen by a hash of each record's key.

A record is a member if its hash is below a limit. Memory holds two numbers per shard,
and the hashes of the shards that are being read.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from vit_scaling.checks import check_at_least, check_fraction
from vit_scaling.data import sidecar_files
from vit_scaling.data.examples import Features, feature_values, parse_example
from vit_scaling.data.record_files import CHECKSUM_FAILS, file_size, read_payloads
from vit_scaling.data.record_index import RecordIndex, Shard, raise_or_warn
from vit_scaling.io_files import map_in_threads

_UNREADABLE_KEY = np.uint64(2**64 - 1)
_THREADS = 64  # Each holds the hashes of a shard.
_BITS, _DIGIT = 64, 16  # Of a hash, and of one step of the search for a limit.


def read_shard_hashes(
    shard: Shard, features: Features, on_bad_record: str = "stop"
) -> np.ndarray:
    """Return the hash of every key of a complete file, uint64 (records,).

    The writer stores them next to the shard. Other files are read once, and the hashes
    are stored. If `on_bad_record` is "skip", a record whose key cannot be read gets the
    largest hash: no proper subset contains it.

    Raises:
        ValueError: A key cannot be read, and `on_bad_record` is "stop".
    """
    size = file_size(shard.path)
    file = RecordIndex(
        [dataclasses.replace(shard, skip=0, take=None)], on_bad_record=on_bad_record
    )
    kinds = [sidecar_files.key_hashes_kind(features.key, size)]
    # Sidecars of earlier versions name neither key nor size; the manifest's size shows
    # that the file is the same.
    if features.key == Features().key and shard.size_bytes == size:
        kinds.append("keys")
    for kind in kinds:
        for hashes in sidecar_files.read_sidecars(shard.path, kind):
            if len(hashes) == file.num_records:
                return hashes
    hashes = _hash_keys(file, features.key)
    # Incomplete hashes are not stored: a repaired file may have the same size.
    if not np.any(hashes == _UNREADABLE_KEY):
        sidecar_files.write_sidecar(shard.path, kinds[0], hashes)
    return hashes


def _hash_keys(file: RecordIndex, key: str) -> np.ndarray:
    hashes = np.full(file.num_records, _UNREADABLE_KEY)
    payloads = read_payloads(file.shards[0].path, file.offsets(0).tolist())
    for number, data in enumerate(payloads):
        try:
            if data is None:
                raise ValueError(CHECKSUM_FAILS)
            (value,) = feature_values(parse_example(data), key)
            hashes[number] = hash_key(value)
        except (ValueError, TypeError) as error:
            raise_or_warn(f"{file.describe(number)}: {error}.", file.on_bad_record)
    return hashes


def hash_key(key: bytes) -> int:
    """Return 64 bits of a key, the same on every machine (BLAKE2b, RFC 7693).

    >>> hex(hash_key(b"n01440764/a.jpg"))
    '0xa2d08bfca918bc5a'
    """
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


@dataclasses.dataclass(frozen=True, eq=False)
class KeyHashes:
    """The hashes of a set's keys, read shard by shard and never all at once.

    Args:
        index: The set.
        features: Names the key.
    """

    index: RecordIndex
    features: Features

    def of_shard(self, number: int) -> np.ndarray:
        """Return the hashes of a shard's records, uint64 (records,)."""
        shard = self.index.shards[number]
        hashes = read_shard_hashes(shard, self.features, self.index.on_bad_record)
        return hashes[shard.skip : shard.skip + int(self.index.counts[number])]

    def map(self, function: Callable[[np.ndarray], Any]) -> list[Any]:
        """Return `function` of every shard's hashes, computed in threads.

        Raises:
            ValueError: No key can be read.
        """
        unreadable = 0
        lock = threading.Lock()

        def apply(number: int) -> Any:
            nonlocal unreadable
            hashes = self.of_shard(number)
            with lock:
                unreadable += int(np.count_nonzero(hashes == _UNREADABLE_KEY))
                return function(hashes)

        results = map_in_threads(apply, range(len(self.index.shards)), _THREADS)
        if unreadable and unreadable == self.index.num_records:
            raise ValueError(
                f"`Features.key`={self.features.key!r} must name a feature of the "
                f"records; none of {unreadable} has it. Give the right one."
            )
        return results


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """The records whose keys' hashes are below a limit, or the others.

    Args:
        hashes: Of the set's keys.
        limit: Members have smaller hashes;
        ties: and so have the first records whose hash is the limit.
        tallies: Hashes of each shard that are below and at the limit, (shards, 2).
        is_complement: Take the records that are no members.
    """

    hashes: KeyHashes
    limit: int
    ties: int
    tallies: np.ndarray
    is_complement: bool = False

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """Number of records of each shard, int64 (shards,)."""
        members = self.tallies[:, 0] + self._ties_of_shards
        return self.hashes.index.counts - members if self.is_complement else members

    @functools.cached_property
    def _ties_of_shards(self) -> np.ndarray:
        at_limit = self.tallies[:, 1]
        before = np.cumsum(at_limit) - at_limit
        return np.clip(self.ties - before, 0, at_limit)

    @property
    def num_records(self) -> int:
        """Exact number of records."""
        return int(self.counts.sum())

    def rows(self, shard: int) -> np.ndarray:
        """Return the increasing numbers of the subset's records in a shard.

        Raises:
            ValueError: The hashes are not those that were counted.
        """
        hashes, limit = self.hashes.of_shard(shard), np.uint64(self.limit)
        is_member = hashes < limit
        ties = np.flatnonzero(hashes == limit)[: self._ties_of_shards[shard]]
        is_member[ties] = True
        rows = np.flatnonzero(is_member != self.is_complement)
        if len(rows) != self.counts[shard]:
            raise ValueError(
                f"{self.hashes.index.shards[shard].path}: {len(rows)} records belong "
                f"to the subset, but {self.counts[shard]} were counted before. The set "
                "has changed; remove the files *.subset-*.npy in its folder index."
            )
        return rows

    def record_numbers(self) -> np.ndarray:
        """Return the increasing numbers in the set of all records, in memory."""
        starts = self.hashes.index.starts.tolist()
        parts = [self.rows(n) + starts[n] for n in range(len(self.counts))]
        return np.concatenate([np.zeros(0, np.int64), *parts])


def select_subset(
    index: RecordIndex,
    features: Features,
    *,
    fraction: float | None = None,
    num_images: int | None = None,
) -> Subset | None:
    """Return a subset: the records with the smallest hashes. None is the complete set.

    Each subset is contained in every larger one, classes keep their proportions within
    sampling noise, and machines agree without communication. The first call reads the
    hashes of all keys, and stores their numbers next to the shards; later calls read
    these.

    Args:
        index: The set.
        features: Names the key of a record.
        fraction: Fraction of the records, above 0 and at most 1; approximate. Records
            with equal keys are selected together.
        num_images: Exact number of records; all if the set is smaller.

    Raises:
        ValueError: Both or none are given, one is out of range, or no key can be read.
    """
    if (fraction is None) == (num_images is None):
        raise ValueError(
            "Give one of `fraction` and `num_images`; "
            f"received fraction={fraction}, num_images={num_images}."
        )
    hashes = KeyHashes(index, features)
    if fraction is not None:
        check_fraction(fraction=fraction)
        if fraction == 1:
            return None
        limit = int(fraction * 2.0**_BITS)
        return _load_or_find(hashes, f"below {limit}", lambda: (limit, 0))
    check_at_least(1, num_images=num_images)
    size = int(num_images or 0)
    if size >= index.num_records:
        return None
    return _load_or_find(hashes, f"first {size}", lambda: _find_limit(hashes, size))


def select_complement(
    index: RecordIndex, features: Features, *, fraction: float
) -> Subset:
    """Return the records that `select_subset` leaves out.

    Args:
        index: The set.
        features: Names the key of a record.
        fraction: Fraction that `select_subset` selects, above 0 and below 1.

    Raises:
        ValueError: `fraction` is out of range, or so near 1 that nothing is left.
    """
    subset = select_subset(index, features, fraction=fraction)
    if subset is None or subset.num_records == index.num_records:
        raise ValueError(
            f"A `fraction` of {fraction} leaves out none of {index.num_records} images;"
            " take a smaller one."
        )
    return dataclasses.replace(subset, is_complement=True)


def _find_limit(hashes: KeyHashes, num_images: int) -> tuple[int, int]:
    """Return the limit below which there are `num_images` hashes, but for ties.

    Digit by digit, from a histogram of the hashes that share the digits found so far.

    Returns:
        (limit, ties): the smaller hashes, with the first `ties` of those that are equal
        to the limit, are exactly `num_images`.
    """
    prefix, rank = 0, num_images
    for shift in range(_BITS - _DIGIT, -1, -_DIGIT):
        digit, smaller, equal = _find_rank(_count_digits(hashes, shift, prefix), rank)
        rank -= smaller
        prefix = prefix << _DIGIT | digit
        if rank == equal and shift:  # All that begin with these digits.
            return (prefix + 1) << shift, 0
    return prefix, rank


def _find_rank(histogram: np.ndarray, rank: int) -> tuple[int, int, int]:
    """Return the digit of the `rank`-th hash, and how many are smaller and equal."""
    total = np.cumsum(histogram)
    digit = int(np.searchsorted(total, rank))
    equal = int(histogram[digit])
    return digit, int(total[digit]) - equal, equal


def _count_digits(hashes: KeyHashes, shift: int, prefix: int) -> np.ndarray:
    """Return a histogram of the digit above bit `shift`, of hashes with a prefix."""
    histogram = np.zeros(2**_DIGIT, np.int64)

    def add(shard: np.ndarray) -> None:
        digits = shard >> np.uint64(shift)
        digits = digits[digits >> np.uint64(_DIGIT) == prefix]
        digits &= np.uint64(2**_DIGIT - 1)
        np.add.at(histogram, digits.astype(np.int64), 1)

    hashes.map(add)
    return histogram


def _load_or_find(
    hashes: KeyHashes, rule: str, find_limit: Callable[[], tuple[int, int]]
) -> Subset:
    """Return a subset whose limit and tallies may be stored next to the first shard."""
    shards = hashes.index.shards
    sizes = [shard.size_bytes for shard in shards]
    rows = [
        (os.path.basename(shard.path), shard.skip, int(count), shard.size_bytes)
        for shard, count in zip(shards, hashes.index.counts, strict=True)
    ]
    text = json.dumps([rows, hashes.features.key, rule])
    kind = f"subset-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    # Without sizes a changed file would not be noticed, nor a repaired one.
    is_stored = None not in sizes and hashes.index.on_bad_record == "stop"
    stored = sidecar_files.read_sidecars(shards[0].path, kind) if is_stored else ()
    for array in stored:
        if array.shape == (2 * len(shards) + 2,):
            limit, ties = (int(value) for value in array[:2])
            return Subset(
                hashes, limit, ties, array[2:].astype(np.int64).reshape(-1, 2)
            )
    limit, ties = find_limit()
    value = np.uint64(limit)
    tallies = hashes.map(
        lambda shard: (
            np.count_nonzero(shard < value),
            np.count_nonzero(shard == value),
        )
    )
    subset = Subset(hashes, limit, ties, np.array(tallies, np.int64))
    if is_stored:
        numbers = [limit, ties, *itertools.chain.from_iterable(tallies)]
        sidecar_files.write_sidecar(shards[0].path, kind, np.array(numbers, np.uint64))
    return subset
