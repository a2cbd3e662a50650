"""Nested subsets, whose members are chosen by a hash of each record's key."""
# SPDX-License-Identifier: Apache-2.0

import hashlib

import numpy as np

from vit_scaling.checks import check_at_least, check_fraction


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
