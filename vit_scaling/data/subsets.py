"""Nested subsets: which records belong is decided by a hash of each record's key."""
# SPDX-License-Identifier: Apache-2.0

import hashlib

import numpy as np


def key_hash(key: bytes) -> int:
    """Return 64 bits of a key, the same on every machine (BLAKE2b, RFC 7693).

    >>> hex(key_hash(b"n01440764/a.jpg"))
    '0xa2d08bfca918bc5a'
    """
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def select(
    hashes: np.ndarray,
    *,
    fraction: float | None = None,
    num_images: int | None = None,
) -> np.ndarray:
    """Return the rising record numbers of a subset.

    A record belongs if its hash is small enough, so a smaller subset lies inside each
    larger one, classes keep their shares within sampling noise, and no machine needs to
    ask another. Records with equal keys come and go together under `fraction`.

    Args:
        hashes: Hash of each record's key, uint64 (records,).
        fraction: Share of the records, above 0 and at most 1: near this many.
        num_images: Exactly this many; all if the set is smaller.

    Raises:
        ValueError: Both or none are given, or one is out of range.
    """
    if (fraction is None) == (num_images is None):
        raise ValueError(
            "Give one of `fraction` and `num_images`; "
            f"received fraction={fraction}, num_images={num_images}."
        )
    if fraction is not None:
        if not 0 < fraction <= 1:
            raise ValueError(
                f"`fraction` must be above 0 and at most 1; received {fraction}."
            )
        if fraction == 1:
            return np.arange(len(hashes))
        return np.flatnonzero(hashes < np.uint64(int(fraction * 2.0**64)))
    if num_images is None or num_images < 1:
        raise ValueError(f"`num_images` must be at least 1; received {num_images}.")
    first = np.argsort(hashes, kind="stable")[:num_images]
    return np.sort(first)


def beyond(hashes: np.ndarray, *, fraction: float) -> np.ndarray:
    """Return the rising record numbers that `select` leaves out under `fraction`.

    Args:
        hashes: Hash of each record's key, uint64 (records,).
        fraction: Share of the records that is trained on, above 0 and below 1.

    Raises:
        ValueError: `fraction` is out of range, or so near 1 that nothing is left.
    """
    left = np.setdiff1d(np.arange(len(hashes)), select(hashes, fraction=fraction))
    if not len(left):
        raise ValueError(
            f"A `fraction` of {fraction} leaves out none of {len(hashes)} images; take "
            "a smaller one."
        )
    return left
