"""Find training images that are near-duplicates of evaluation images.

1. A 64-bit perceptual hash (cosine transform) of each image and of its likely crops.
   Bits that noise could flip do not count.
2. Candidates within a Hamming distance of the hashes, by multi-index hashing.
3. A comparison of pixels: the correlation at 28×28 pixels after small shifts, and no
   place where the images differ more than a copy would.

Time is linear in the number of training images. A worker needs only the index of the
evaluation images, so the search scales to any number of workers.

References: Zauner 2010 (perceptual hashing); Norouzi et al. 2012 (multi-index hashing);
Zhai et al. 2022, §3.3 (near-duplicates are removed, but no method is given).
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vit_scaling.data.deduplication import likeness
from vit_scaling.data.deduplication.fingerprints import Fingerprint
from vit_scaling.data.deduplication.likeness import Part, differs_locally

_BANDS, _BAND_BITS = 4, 16
# Unrelated hashes differ in half of their bits; no more than this fraction may differ.
MAX_DIFFERING_FRACTION = 0.3
_MAX_IMAGES = 64  # The images with the nearest hashes whose pixels are compared;
_MAX_PAIRS = 24  # of each, the pairs of parts compared as they are;
_MAX_SHIFTED = 3  # and of these, the most similar, compared with shifts.
_FIRST_SHIFT, _SHIFT_ROUNDS = 0.02, 3
_WITHOUT_LINE = 0.96  # Likeness of the rest of an image with text over it.
_PARTS_KEPT = 2048  # 30 kB each.
_MIN_TO_SHIFT, _ENOUGH = 0.7, 0.995  # Shifts cannot help below and are useless above.
_SHIFTS = np.array(
    [
        [1, 0, 1, 0],
        [0, 1, 0, 1],
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
        [-1, -1, 1, 1],
    ],
    np.float32,
)  # Of a box's left, top, right and bottom.


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """When two images are near-duplicates.

    Args:
        distance: Largest distance in bits between the hashes of candidates. Up to 7 all
            candidates are found; above, most.
        likeness: Smallest correlation of the pixels of near-duplicates.
    """

    distance: int = 10
    likeness: float = 0.94

    def __post_init__(self) -> None:
        if not 0 <= self.distance <= 20 or not 0 < self.likeness <= 1:
            raise ValueError(
                "`distance` must be 0 to 20 and `likeness` above 0 and at most 1; "
                f"received distance={self.distance}, likeness={self.likeness}."
            )


@dataclasses.dataclass(frozen=True)
class Match:
    """A near-duplicate: the key of the indexed image, distance and likeness."""

    key: Any
    distance: int
    likeness: float


class HashIndex:
    """Hashes to search, each with the mask of its bits that count.

    Two hashes at most 7 bits apart have one of four bands of 16 bits in common but for
    one bit, so all such pairs are found; of pairs further apart, most are.

    Args:
        hashes: uint64 (hashes,).
        stable: Masks of the bits that count, uint64 (hashes,).

    References:
        Norouzi et al. 2012, "Fast search in Hamming space with multi-index hashing".
    """

    def __init__(self, hashes: np.ndarray, stable: np.ndarray) -> None:
        # Bits that do not count are 0 here and in queries. Otherwise noise would put
        # two copies of a smooth image into different bands.
        self._hashes, self._stable = hashes & stable, stable
        self._order, self._starts = [], []
        for band in range(_BANDS):
            values = _band_values(self._hashes, band)
            order = np.argsort(values, kind="stable").astype(np.int64)
            self._order.append(order)
            self._starts.append(
                np.searchsorted(values[order], np.arange(2**_BAND_BITS + 1))
            )
        flips = [0, *(1 << bit for bit in range(_BAND_BITS))]
        self._flips = np.array(flips, np.int64)

    def search(
        self, queries: np.ndarray, stable: np.ndarray, distance: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find all pairs of a query and a hash within a distance; some are repeated.

        Args:
            queries: uint64 (queries,).
            stable: Masks of the queries' bits that count, uint64 (queries,).
            distance: In bits; also limited to 0.3 of the bits that count in both.

        Returns:
            For each pair the query's row, the hash's row, and the distance.
        """
        queries = queries & stable
        query_rows, hash_rows = [], []
        for band in range(_BANDS):
            values = _band_values(queries, band)[:, None] ^ self._flips  # (queries, 17)
            starts, ends = self._starts[band][values], self._starts[band][values + 1]
            counts = (ends - starts).ravel()
            first = np.repeat(starts.ravel() - np.cumsum(counts) + counts, counts)
            hash_rows.append(self._order[band][first + np.arange(len(first))])
            numbers = np.arange(values.size) // len(self._flips)
            query_rows.append(np.repeat(numbers, counts))
        query_row, hash_row = np.concatenate(query_rows), np.concatenate(hash_rows)
        both = stable[query_row] & self._stable[hash_row]
        differing = (queries[query_row] ^ self._hashes[hash_row]) & both
        distances = np.bitwise_count(differing)
        limits = MAX_DIFFERING_FRACTION * np.bitwise_count(both)
        keep = distances <= np.minimum(distance, limits)
        return query_row[keep], hash_row[keep], distances[keep]


def _band_values(hashes: np.ndarray, band: int) -> np.ndarray:
    shifted = hashes >> np.uint64(_BAND_BITS * (_BANDS - 1 - band))
    return (shifted & np.uint64(2**_BAND_BITS - 1)).astype(np.int64)


class NearDuplicateIndex:
    """Finds the near-duplicate of an image in a fixed set.

    Args:
        keys: A name for each image of the set.
        fingerprints: The images' fingerprints.
        thresholds: When two images are near-duplicates.
    """

    def __init__(
        self,
        keys: Sequence[Any],
        fingerprints: Sequence[Fingerprint],
        thresholds: Thresholds,
    ) -> None:
        self._keys, self._thresholds = keys, thresholds
        self._thumbnails = np.stack([print_.thumbnail for print_ in fingerprints])
        self._boxes = np.concatenate([print_.boxes for print_ in fingerprints])
        self._mirrored = np.concatenate([print_.mirrored for print_ in fingerprints])
        parts = [len(print_.hashes) for print_ in fingerprints]
        self._image = np.repeat(np.arange(len(fingerprints)), parts)
        self._index = HashIndex(
            np.concatenate([print_.hashes for print_ in fingerprints]),
            np.concatenate([print_.stable for print_ in fingerprints]),
        )

    def find(self, query: Fingerprint) -> Match | None:
        """Return the near-duplicate with the nearest hashes, or None."""
        rows, entries, distances = self._index.search(
            query.hashes, query.stable, self._thresholds.distance
        )
        pairs: dict[int, list[int]] = {}  # By image, the nearest first.
        for pair in np.argsort(distances, kind="stable").tolist():
            pairs.setdefault(int(self._image[entries[pair]]), []).append(pair)
        cut_query = functools.cache(
            lambda row: likeness.cut_part(
                query.thumbnail, query.boxes[row], mirrored=False
            )
        )
        for image, nearest in itertools.islice(pairs.items(), _MAX_IMAGES):
            unshifted = [
                (-cut_query(rows[pair]).likeness(self._part(entries[pair])), pair)
                for pair in nearest[:_MAX_PAIRS]
            ]
            for _, pair in heapq.nsmallest(_MAX_SHIFTED, unshifted):
                found = self._shifted_likeness(cut_query(rows[pair]), entries[pair])
                if found >= self._thresholds.likeness:
                    return Match(self._keys[image], int(distances[pair]), found)
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_part"}

    @functools.cached_property
    def _part(self) -> Callable[[int], Part]:
        """The part of an entry; unrelated images are often near the same ones."""
        cut = functools.lru_cache(_PARTS_KEPT)
        return cut(lambda entry: self._cut(entry, self._boxes[entry]))

    def _cut(self, entry: int, box: np.ndarray) -> Part:
        thumbnail = self._thumbnails[self._image[entry]]
        return likeness.cut_part(thumbnail, box, mirrored=bool(self._mirrored[entry]))

    def _shifted_likeness(self, query: Part, entry: int) -> float:
        """Return the best likeness over small shifts of the indexed part.

        Hill climbing: each round takes the best shift, or halves the size of shifts.
        The result is -1 if the best part differs from the query in one place, unless
        that is a line, such as text, and the rest is very much alike.
        """
        box, shift = self._boxes[entry], _FIRST_SHIFT
        part = self._part(entry)
        best = query.likeness(part)
        for _ in range(_SHIFT_ROUNDS):
            if not _MIN_TO_SHIFT <= best <= _ENOUGH:
                break
            moves = shift * np.concatenate([-_SHIFTS, _SHIFTS])
            boxes = np.clip(box + moves, 0.0, 1.0)
            parts = [self._cut(entry, moved) for moved in boxes]
            found = [query.likeness(moved) for moved in parts]
            top = int(np.argmax(found))
            if found[top] > best:
                best, box, part = found[top], boxes[top], parts[top]
            else:
                shift /= 2
        if best <= _MIN_TO_SHIFT:
            return best
        if best >= self._thresholds.likeness and not differs_locally(part, query):
            return best
        part, query = likeness.leave_out_line(part, query)
        best = part.likeness(query)
        is_copy = best >= _WITHOUT_LINE and not differs_locally(part, query)
        return best if is_copy else -1.0
