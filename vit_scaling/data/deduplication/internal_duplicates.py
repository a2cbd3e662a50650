"""Find repeats inside one set in linear time: hashes meet in buckets, pixels decide.

Each image goes into ten buckets, one for each choice of two of the five bands of its
64-bit hash (25 or 26 bits); images in one bucket are candidates for each other. Hashes
that differ in at most three bits share a bucket always (pigeonholes), others most
often. In a bucket each image is held against the 64 first only, so time is linear in
the number of images whatever the buckets' sizes; 3 billion images fill 2^25 buckets to
about that number.

An image goes if it is near an earlier one, whether or not that one goes too: no order
of work matters, so one process and a cluster find the same.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from vit_scaling.data.deduplication import fingerprints
from vit_scaling.data.deduplication.fingerprints import Fingerprint
from vit_scaling.data.deduplication.matching import Match, Thresholds

_EDGES = (0, 13, 26, 39, 52, 64)  # Of five bands, in bits.
COMPARED = 64  # Earliest images of a bucket, and nearest candidates of an image.


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Member:
    """An image in a bucket.

    Args:
        record: Its number in the set.
        mirrored: Whether the hash is that of its mirror image.
        hash: 64 bits, the uncertain ones 0.
        certain: Which bits noise cannot turn over.
    """

    record: int
    mirrored: bool
    hash: int
    certain: int


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Candidate:
    """An earlier image that may be the original of another.

    Args:
        distance: Of the hashes, in bits.
        record: Of the earlier image.
        mirrored: Whether the other image is its mirror image.
    """

    distance: int
    record: int
    mirrored: bool


@functools.cache
def masks() -> tuple[int, ...]:
    """Return which bits of a hash make its ten keys."""
    bands = [
        sum(1 << (63 - bit) for bit in range(low, high))
        for low, high in itertools.pairwise(_EDGES)
    ]
    return tuple(a | b for a, b in itertools.combinations(bands, 2))


def members(record: int, whole: Fingerprint) -> list[Member]:
    """Return an image's two members, as it is and mirrored.

    Args:
        record: Its number.
        whole: From `fingerprints.of_whole`: two hashes.
    """
    pairs = zip(whole.hashes.tolist(), whole.certain.tolist(), strict=True)
    return [
        Member(record, mirrored, bits & certain, certain)
        for mirrored, (bits, certain) in zip((False, True), pairs, strict=True)
    ]


def candidates(
    bucket: Iterable[Member], thresholds: Thresholds
) -> Iterator[tuple[int, Candidate]]:
    """Yield (record, an earlier candidate for its original) of one bucket.

    Args:
        bucket: Members with one key; read twice, held never.
        thresholds: The distance that makes a candidate.
    """
    plain = (member for member in bucket if not member.mirrored)
    first = heapq.nsmallest(COMPARED, plain)
    for member in bucket:
        for earlier in first:
            if earlier.record >= member.record:
                break
            certain = member.certain & earlier.certain
            distance = ((member.hash ^ earlier.hash) & certain).bit_count()
            limit = min(thresholds.distance, 0.3 * certain.bit_count())
            if distance <= limit:
                yield (
                    member.record,
                    Candidate(distance, earlier.record, member.mirrored),
                )


def confirmed(
    found: Iterable[Candidate],
    pixels: np.ndarray,
    pixels_of: Callable[[int], np.ndarray],
    thresholds: Thresholds,
) -> Match | None:
    """Return the nearest candidate whose picture is like an image's, if one is.

    Args:
        found: Candidates; one may come several times.
        pixels: The image's small picture, uint8 (96, 96, 3).
        pixels_of: From a record number to its small picture.
        thresholds: The likeness that is wanted.
    """
    for one in heapq.nsmallest(COMPARED, set(found)):
        mine = fingerprints.part(pixels, fingerprints.WHOLE, flipped=one.mirrored)
        theirs = fingerprints.part(
            pixels_of(one.record), fingerprints.WHOLE, flipped=False
        )
        alike = fingerprints.likeness(mine, theirs)
        near = alike >= thresholds.likeness
        if near and not fingerprints.differ_somewhere(theirs, mine):
            return Match(one.record, one.distance, alike)
    return None


def find_repeats(
    everyone: list[Member],
    pixels_of: Callable[[int], np.ndarray],
    thresholds: Thresholds,
) -> list[tuple[int, Match]]:
    """Return the records that repeat an earlier one, rising, each with that one.

    Args:
        everyone: Members of all images; 2 for each.
        pixels_of: From a record number to its small picture.
        thresholds: What counts as near.
    """
    bits = np.array([member.hash for member in everyone], np.uint64)
    found: dict[int, set[Candidate]] = {}
    for mask in masks():
        for rows in _buckets(bits & np.uint64(mask)):
            bucket = [everyone[row] for row in rows]
            for record, candidate in candidates(bucket, thresholds):
                found.setdefault(record, set()).add(candidate)
    judged = (
        (record, confirmed(found[record], pixels_of(record), pixels_of, thresholds))
        for record in sorted(found)
    )
    return [(record, match) for record, match in judged if match]


def _buckets(keys: np.ndarray) -> Iterator[Any]:
    """Yield the rows that share a key, for each key of at least two."""
    order = np.argsort(keys, kind="stable")
    edges = np.flatnonzero(np.diff(keys[order])) + 1
    for first, end in itertools.pairwise([0, *edges.tolist(), len(keys)]):
        if end - first > 1:
            yield order[first:end]
