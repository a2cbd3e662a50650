"""Nested subsets, whose members are chosen by a hash of each record's key."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import hashlib

import numpy as np

from vit_scaling.checks import check_at_least, check_fraction
from vit_scaling.data import sidecar_files
from vit_scaling.data.examples import Features, feature_values, parse_example
from vit_scaling.data.record_files import CHECKSUM_FAILS, file_size, read_payloads
from vit_scaling.data.record_index import RecordIndex, Shard, raise_or_warn

_UNREADABLE_KEY = np.uint64(2**64 - 1)


def read_key_hashes(index: RecordIndex, features: Features) -> np.ndarray:
    """Return the hash of every record's key, uint64 (records,).

    The writer stores them next to the shards. Other sets are read once, and the hashes
    are stored. If the index skips bad records, a record whose key cannot be read gets
    the largest hash: no proper subset contains it.

    Raises:
        ValueError: No key can be read, or one cannot and the index stops at bad
            records.
    """
    parts = [np.zeros(0, np.uint64)]
    for number, shard in enumerate(index.shards):
        hashes = _shard_hashes(shard, features, index.on_bad_record)
        parts.append(hashes[shard.skip : shard.skip + int(index.counts[number])])
    all_hashes = np.concatenate(parts)
    if len(all_hashes) and np.all(all_hashes == _UNREADABLE_KEY):
        raise ValueError(
            f"`Features.key`={features.key!r} must name a feature of the records; none "
            f"of {len(all_hashes)} has it. Give the right one."
        )
    return all_hashes


def _shard_hashes(shard: Shard, features: Features, on_bad_record: str) -> np.ndarray:
    """Return the hashes of a complete file, from its sidecar if possible."""
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


def select_subset(
    hashes: np.ndarray,
    *,
    fraction: float | None = None,
    num_images: int | None = None,
) -> np.ndarray:
    """Return the increasing record numbers of a subset: those with the smallest hashes.

    Each subset is contained in every larger one, classes keep their proportions within
    sampling noise, and machines agree without communication.

    Args:
        hashes: Hash of each record's key, uint64 (records,).
        fraction: Fraction of the records, above 0 and at most 1; approximate. Records
            with equal keys are selected together.
        num_images: Exact number of records; all if the set is smaller.

    Raises:
        ValueError: Both or none are given, or one is out of range.
    """
    if (fraction is None) == (num_images is None):
        raise ValueError(
            "Give one of `fraction` and `num_images`; "
            f"received fraction={fraction}, num_images={num_images}."
        )
    if fraction is not None:
        check_fraction(fraction=fraction)
        if fraction == 1:
            return np.arange(len(hashes))
        return np.flatnonzero(hashes < np.uint64(int(fraction * 2.0**64)))
    check_at_least(1, num_images=num_images)
    return np.sort(np.argsort(hashes, kind="stable")[:num_images])


def select_complement(hashes: np.ndarray, *, fraction: float) -> np.ndarray:
    """Return the increasing record numbers that `select_subset` leaves out.

    Args:
        hashes: Hash of each record's key, uint64 (records,).
        fraction: Fraction that `select_subset` selects, above 0 and below 1.

    Raises:
        ValueError: `fraction` is out of range, or so near 1 that nothing is left.
    """
    selected = select_subset(hashes, fraction=fraction)
    complement = np.setdiff1d(np.arange(len(hashes)), selected)
    if not len(complement):
        raise ValueError(
            f"A `fraction` of {fraction} leaves out none of {len(hashes)} images; take "
            "a smaller one."
        )
    return complement
