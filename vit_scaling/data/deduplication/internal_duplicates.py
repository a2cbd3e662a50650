"""Find duplicates inside one set in linear time: hashes in buckets, then pixels.

Each image is put into ten buckets, one for each choice of two of the five bands of its
64-bit hash (25 or 26 bits). Images in one bucket are candidates for each other. Hashes
that differ in at most three bits always share a bucket, other similar ones mostly do.
In a bucket each image is compared with the 64 first only, so time is linear in the
number of images whatever the buckets' sizes: 3 billion images fill 2^25 buckets to
about that number.

An image is a duplicate if it is close to an earlier one, whether or not that one is
removed too. So the result does not depend on the order of work, and is the same in one
process and on a cluster.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from vit_scaling.data.deduplication import likeness
from vit_scaling.data.deduplication.fingerprints import fingerprint_whole_image
from vit_scaling.data.deduplication.matching import (
    MAX_DIFFERING_FRACTION,
    Match,
    Thresholds,
)

_BAND_EDGES = (0, 13, 26, 39, 52, 64)  # In bits.
MAX_COMPARED = 64  # Earliest images of a bucket, and nearest candidates of an image.


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class BucketEntry:
    """An image, or its mirror image, in a bucket.

    Args:
        record: Its number in the set.
        mirrored: Whether the hash is of its mirror image.
        hash: 64 bits; those that are not stable are 0.
        stable: Mask of the bits that noise cannot flip.
    """

    record: int
    mirrored: bool
    hash: int
    stable: int


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Candidate:
    """An earlier image that may be the original of another.

    Args:
        distance: Between the hashes, in bits.
        record: Number of the earlier image.
        mirrored: Whether the other image is its mirror image.
    """

    distance: int
    record: int
    mirrored: bool


@functools.cache
def bucket_masks() -> tuple[int, ...]:
    """Return the masks of the bits that make a hash's ten buckets."""
    bands = [
        sum(1 << (63 - bit) for bit in range(low, high))
        for low, high in itertools.pairwise(_BAND_EDGES)
    ]
    return tuple(a | b for a, b in itertools.combinations(bands, 2))


def make_entries(record: int, thumbnail: np.ndarray) -> Iterator[BucketEntry]:
    """Yield an image's two entries: as it is, and mirrored."""
    whole = fingerprint_whole_image(thumbnail)
    columns = (whole.mirrored, whole.hashes & whole.stable, whole.stable)
    for mirrored, bits, stable in zip(*(c.tolist() for c in columns), strict=True):
        yield BucketEntry(record, mirrored, bits, stable)


def find_candidates(
    bucket: Iterable[BucketEntry], thresholds: Thresholds
) -> Iterator[tuple[int, Candidate]]:
    """Yield (record, candidate for its original) of one bucket.

    Args:
        bucket: Entries of one bucket. It is iterated twice and never stored, because it
            may be larger than the memory.
        thresholds: The largest distance of a candidate.
    """
    unmirrored = (entry for entry in bucket if not entry.mirrored)
    first = heapq.nsmallest(MAX_COMPARED, unmirrored)
    for entry in bucket:
        for earlier in first:
            if earlier.record >= entry.record:
                break
            stable = entry.stable & earlier.stable
            distance = ((entry.hash ^ earlier.hash) & stable).bit_count()
            limit = MAX_DIFFERING_FRACTION * stable.bit_count()
            if distance <= min(thresholds.distance, limit):
                candidate = Candidate(distance, earlier.record, entry.mirrored)
                yield entry.record, candidate


def confirm_original(
    record: int,
    candidates: Iterable[Candidate],
    read_thumbnail: Callable[[int], np.ndarray],
    thresholds: Thresholds,
) -> Match | None:
    """Return the nearest candidate whose pixels are like an image's, or None.

    Args:
        record: Number of the image.
        candidates: May contain a candidate several times.
        read_thumbnail: From a record's number to its thumbnail, uint8 (96, 96, 3).
        thresholds: The smallest likeness of a duplicate.
    """
    thumbnail = read_thumbnail(record)
    for candidate in heapq.nsmallest(MAX_COMPARED, set(candidates)):
        part = _cut_whole(thumbnail, mirrored=candidate.mirrored)
        original = _cut_whole(read_thumbnail(candidate.record), mirrored=False)
        found = part.likeness(original)
        is_close = found >= thresholds.likeness
        if is_close and not likeness.differs_locally(original, part):
            return Match(candidate.record, candidate.distance, found)
    return None


def _cut_whole(thumbnail: np.ndarray, *, mirrored: bool) -> likeness.Part:
    return likeness.cut_part(thumbnail, likeness.WHOLE_IMAGE, mirrored=mirrored)


def collect_candidates(
    entries: list[BucketEntry], thresholds: Thresholds
) -> dict[int, set[Candidate]]:
    """Return the candidates of every image that has some, by record, in memory.

    Args:
        entries: The entries of all images.
        thresholds: The largest distance of a candidate.
    """
    candidates: dict[int, set[Candidate]] = {}
    for mask in bucket_masks():
        buckets: dict[int, list[BucketEntry]] = {}
        for entry in entries:
            buckets.setdefault(entry.hash & mask, []).append(entry)
        for bucket in buckets.values():
            for record, candidate in find_candidates(bucket, thresholds):
                candidates.setdefault(record, set()).add(candidate)
    return candidates
