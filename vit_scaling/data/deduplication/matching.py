"""Find training images that are near-duplicates of evaluation images.

1. A 64-bit perceptual hash (cosine transform) of each image and of its likely crops;
   bits that noise could turn over do not count.
2. Candidates within a Hamming distance by multi-index hashing: four bands of 16 bits;
   two hashes at most 7 bits apart agree in some band but for one bit (pigeonholes).
3. A check on pixels: correlation of the two pictures at 28×28 after small shifts, and
   no place where they differ more than copying explains.

Time is linear in the number of training images; the index of the evaluation images is
the only thing a worker needs, so a cluster takes as many workers as one likes.

References: Zauner 2010 (perceptual hashing); Norouzi et al. 2012 (multi-index hashing);
Zhai et al. 2022, §3.3 (which gives no method).
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_scaling.data.deduplication import fingerprints
from vit_scaling.data.deduplication.fingerprints import Fingerprint

_BANDS, _BAND_BITS = 4, 16
MAX_GUARANTEED_DISTANCE = 2 * _BANDS - 1
_CANDIDATES = 64  # The nearest so many images are compared by pixels,
_PAIRS = 24  # of each so many pairs of parts as they lie,
_WALKS = 8  # and the likest so many of these after shifts.
_PLAIN = 0.995  # So alike, no shift can help.


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """When two images are near-duplicates.

    Args:
        distance: Hashes at most so many bits apart make a candidate. Up to 7 all are
            found; above, most.
        likeness: Correlation of the pictures that makes a candidate a duplicate.
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
    """A near-duplicate: which image of the index, and how near."""

    key: Any
    distance: int
    likeness: float


class HashIndex:
    """Hashes that can be searched within a Hamming distance.

    Args:
        hashes: uint64 (hashes,).
        certain: Which bits of each count, uint64 (hashes,); None is all.
    """

    def __init__(self, hashes: np.ndarray, certain: np.ndarray | None = None) -> None:
        self._certain = _all_bits(hashes) if certain is None else certain
        # Uncertain bits are 0 in the index and in what is looked up: chance would put
        # two copies of a plain picture into different bands.
        self._hashes = hashes = hashes & self._certain
        self._order, self._starts = [], []
        for band in range(_BANDS):
            values = _band(hashes, band)
            order = np.argsort(values, kind="stable").astype(np.int64)
            edges = np.arange(2**_BAND_BITS + 1)
            self._order.append(order)
            self._starts.append(np.searchsorted(values[order], edges))
        flips = [0, *(1 << bit for bit in range(_BAND_BITS))]
        self._flips = np.array(flips, np.int64)

    def near(
        self, hashes: np.ndarray, distance: int, certain: np.ndarray | None = None
    ) -> tuple[np.ndarray, ...]:
        """Return what is near: (row of `hashes`, row of the index, distance).

        Args:
            hashes: uint64 (queries,).
            distance: In bits; at most 0.3 of the certain ones (unrelated: half).
            certain: Which bits of the queries count, uint64 (queries,); None is all.
        """
        certain = _all_bits(hashes) if certain is None else certain
        hashes = hashes & certain
        rows, found = [], []
        for band in range(_BANDS):
            probes = _band(hashes, band)[:, None] ^ self._flips  # (hashes, 17)
            starts, ends = self._starts[band][probes], self._starts[band][probes + 1]
            counts = (ends - starts).ravel()
            first = np.repeat(starts.ravel() - np.cumsum(counts) + counts, counts)
            found.append(self._order[band][first + np.arange(len(first))])
            rows.append(np.repeat(np.arange(probes.size) // len(self._flips), counts))
        row, entry = np.concatenate(rows), np.concatenate(found)
        both = certain[row] & self._certain[entry]
        apart = np.bitwise_count((hashes[row] ^ self._hashes[entry]) & both)
        keep = apart <= np.minimum(distance, 0.3 * np.bitwise_count(both))
        return row[keep], entry[keep], apart[keep]


def _all_bits(hashes: np.ndarray) -> np.ndarray:
    return np.full(len(hashes), 2**64 - 1, np.uint64)


def _band(hashes: np.ndarray, band: int) -> np.ndarray:
    shifted = hashes >> np.uint64(_BAND_BITS * (_BANDS - 1 - band))
    return (shifted & np.uint64(2**_BAND_BITS - 1)).astype(np.int64)


class NearDuplicates:
    """Answers whether an image is a near-duplicate of one of a fixed set.

    Args:
        keys: Names the images of the set.
        prints: Their fingerprints.
        thresholds: What counts as near.
    """

    def __init__(
        self,
        keys: Sequence[Any],
        prints: Sequence[Fingerprint],
        thresholds: Thresholds | None = None,
    ) -> None:
        self.keys = list(keys)
        self.thresholds = thresholds or Thresholds()
        self._pixels = np.stack([one.pixels for one in prints])
        self._boxes = np.concatenate([one.boxes for one in prints])
        self._flipped = np.concatenate([one.flipped for one in prints])
        lengths = [len(one.hashes) for one in prints]
        self._image = np.repeat(np.arange(len(prints)), lengths)
        self._index = HashIndex(
            np.concatenate([one.hashes for one in prints]),
            np.concatenate([one.certain for one in prints]),
        )

    def match(self, other: Fingerprint) -> Match | None:
        """Return the first near-duplicate of an image, nearest hashes first."""
        rows, entries, distances = self._index.near(
            other.hashes, self.thresholds.distance, other.certain
        )
        pairs: dict[int, list[int]] = {}  # By image, nearest first.
        for place in np.argsort(distances, kind="stable"):
            pairs.setdefault(int(self._image[entries[place]]), []).append(int(place))
        theirs = functools.cache(
            lambda row: fingerprints.part(other.pixels, other.boxes[row], flipped=False)
        )
        for image, places in itertools.islice(pairs.items(), _CANDIDATES):
            starts = [
                (-self._plain_likeness(theirs(rows[place]), entries[place]), place)
                for place in places[:_PAIRS]
            ]
            for _, place in sorted(starts)[:_WALKS]:
                alike = self._likeness(theirs(rows[place]), int(entries[place]))
                if alike >= self.thresholds.likeness:
                    return Match(self.keys[image], int(distances[place]), alike)
        return None

    def _part(self, entry: int, box: np.ndarray) -> np.ndarray:
        pixels, flipped = self._pixels[self._image[entry]], self._flipped[entry]
        return fingerprints.part(pixels, box, flipped=bool(flipped))

    def _plain_likeness(self, theirs: np.ndarray, entry: int) -> float:
        return fingerprints.likeness(theirs, self._part(entry, self._boxes[entry]))

    def _likeness(self, theirs: np.ndarray, entry: int) -> float:
        """Return the best correlation over small shifts of a part.

        It is -1 where the best are alike but differ in one place.
        """
        box, step = self._boxes[entry], 0.02
        best, best_part = -1.0, theirs
        for _ in range(4):  # Walk uphill, edge by edge, then with half the step.
            improved = False
            for moved in _neighbours(box, step) if best > -1 else [box]:
                mine = self._part(entry, moved)
                alike = fingerprints.likeness(theirs, mine)
                if alike > best:
                    best, best_part, better, improved = alike, mine, moved, True
            if best > _PLAIN or best < 0.5:
                break
            box, step = (better, step) if improved else (box, step / 2)
        differ = best > 0.5 and fingerprints.differ_somewhere(best_part, theirs)
        return -1.0 if differ else best


def _neighbours(box: np.ndarray, step: float) -> list[np.ndarray]:
    """Return the box shifted, grown and shrunk a little on each side."""
    moves = [
        sign * np.array(move, np.float32) * step
        for sign, move in itertools.product(
            (-1, 1),
            (
                [1, 0, 1, 0],
                [0, 1, 0, 1],
                [1, 0, 0, 0],
                [0, 1, 0, 0],
                [0, 0, 1, 0],
                [0, 0, 0, 1],
                [-1, -1, 1, 1],
            ),
        )
    ]
    return [np.clip(box + move, 0.0, 1.0) for move in moves]
