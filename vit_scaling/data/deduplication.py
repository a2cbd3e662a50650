"""Find training images that are near-duplicates of evaluation images.

1. A 64-bit perceptual hash (cosine transform) of each image and of its likely crops;
   bits that noise could turn over do not count.
2. Candidates within a Hamming distance by multi-index hashing: four bands of 16 bits;
   two hashes at most 7 bits apart agree in some band but for one bit (pigeonholes).
3. A check on pixels: correlation of the two pictures at 32×32, after small shifts.

Time is linear in the number of training images; the index of the evaluation images is
the only thing a worker needs, so a cluster takes as many workers as one likes.

References: Zauner 2010 (perceptual hashing); Norouzi et al. 2012 (multi-index hashing);
Zhai et al. 2022, §3.3 (which gives no method).
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_scaling.data import fingerprints
from vit_scaling.data.fingerprints import Fingerprint

_BANDS, _BAND_BITS = 4, 16
MAX_GUARANTEED_DISTANCE = 2 * _BANDS - 1
_CANDIDATES = 64  # The nearest so many images are compared by pixels.


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """When two images are near-duplicates.

    Args:
        distance: Hashes at most so many bits apart make a candidate. Up to 7 all are
            found; above, most.
        likeness: Correlation of the pictures that makes a candidate a duplicate.
    """

    distance: int = 10
    likeness: float = 0.96

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
    """

    def __init__(self, hashes: np.ndarray) -> None:
        self._hashes = hashes
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
        if certain is None:
            certain = np.full(len(hashes), 2**64 - 1, np.uint64)
        limit = np.minimum(distance, 0.3 * np.bitwise_count(certain))
        rows, found = [], []
        for band in range(_BANDS):
            probes = _band(hashes, band)[:, None] ^ self._flips  # (hashes, 17)
            starts, ends = self._starts[band][probes], self._starts[band][probes + 1]
            counts = (ends - starts).ravel()
            first = np.repeat(starts.ravel() - np.cumsum(counts) + counts, counts)
            found.append(self._order[band][first + np.arange(len(first))])
            rows.append(np.repeat(np.arange(probes.size) // len(self._flips), counts))
        row, entry = np.concatenate(rows), np.concatenate(found)
        apart = np.bitwise_count((hashes[row] ^ self._hashes[entry]) & certain[row])
        keep = apart <= limit[row]
        return row[keep], entry[keep], apart[keep]


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
        self._index = HashIndex(np.concatenate([one.hashes for one in prints]))

    def match(self, other: Fingerprint) -> Match | None:
        """Return the first near-duplicate of an image, nearest hashes first."""
        rows, entries, distances = self._index.near(
            other.hashes, self.thresholds.distance, other.certain
        )
        order = np.argsort(distances, kind="stable")
        seen: dict[int, int] = {}
        for place in order:
            image = int(self._image[entries[place]])
            seen[image] = seen.get(image, 0) + 1
            if seen[image] > 3:  # Three pairs of parts of an image are enough.
                continue
            if len(seen) > _CANDIDATES:
                break
            alike = self._likeness(other, int(rows[place]), int(entries[place]))
            if alike >= self.thresholds.likeness:
                return Match(self.keys[image], int(distances[place]), alike)
        return None

    def _likeness(self, other: Fingerprint, row: int, entry: int) -> float:
        """Return the best correlation over small shifts of the two parts."""
        theirs = fingerprints.part(other.pixels, other.boxes[row], flipped=False)
        flipped = bool(self._flipped[entry])
        pixels = self._pixels[self._image[entry]]
        box = self._boxes[entry]
        best, step = -1.0, 0.02
        for _ in range(4):  # Walk uphill, edge by edge, then with half the step.
            improved = False
            for moved in _neighbours(box, step) if best > -1 else [box]:
                mine = fingerprints.part(pixels, moved, flipped=flipped)
                alike = fingerprints.likeness(theirs, mine)
                if alike > best:
                    best, better, improved = alike, moved, True
            if best >= self.thresholds.likeness or best < 0.5:
                return best
            box, step = (better, step) if improved else (box, step / 2)
        return best


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


def find_repeats(
    keys: Sequence[Any], prints: Sequence[Fingerprint], thresholds: Thresholds
) -> list[tuple[Any, Match]]:
    """Return the images of one set that repeat an earlier one, each with that one."""
    whole = HashIndex(np.array([one.hashes[0] for one in prints], np.uint64))
    repeats: list[tuple[Any, Match]] = []
    dropped: set[int] = set()
    for number, one in enumerate(prints):
        _, entries, distances = whole.near(
            one.hashes[:1], thresholds.distance, one.certain[:1]
        )
        earlier = sorted(
            (int(apart), int(entry))
            for entry, apart in set(
                zip(entries.tolist(), distances.tolist(), strict=True)
            )
            if entry < number and entry not in dropped
        )
        for apart, entry in earlier[:_CANDIDATES]:
            mine = fingerprints.part(one.pixels, fingerprints.WHOLE, flipped=False)
            theirs = fingerprints.part(
                prints[entry].pixels, fingerprints.WHOLE, flipped=False
            )
            alike = fingerprints.likeness(mine, theirs)
            if alike >= thresholds.likeness:
                repeats.append((keys[number], Match(keys[entry], apart, alike)))
                dropped.add(number)
                break
    return repeats
