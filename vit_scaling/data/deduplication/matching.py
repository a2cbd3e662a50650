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
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_scaling.data.deduplication import likeness
from vit_scaling.data.deduplication.fingerprints import Fingerprint
from vit_scaling.data.deduplication.hash_index import HashIndex

_MAX_IMAGES = 64  # The images with the nearest hashes whose pixels are compared;
_MAX_PAIRS = 24  # of each, the pairs of parts compared as they are;
_MAX_SHIFTED = 8  # and of these, the most similar, compared with shifts.
_FIRST_SHIFT, _SHIFT_ROUNDS = 0.02, 3
_MIN_TO_SHIFT, _ENOUGH = 0.5, 0.995  # Shifts cannot help below and are useless above.
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
                (-self._unshifted_likeness(cut_query(rows[pair]), entries[pair]), pair)
                for pair in nearest[:_MAX_PAIRS]
            ]
            for _, pair in heapq.nsmallest(_MAX_SHIFTED, unshifted):
                found = self._shifted_likeness(cut_query(rows[pair]), entries[pair])
                if found >= self._thresholds.likeness:
                    return Match(self._keys[image], int(distances[pair]), found)
        return None

    def _cut(self, entry: int, box: np.ndarray) -> np.ndarray:
        thumbnail = self._thumbnails[self._image[entry]]
        return likeness.cut_part(thumbnail, box, mirrored=bool(self._mirrored[entry]))

    def _unshifted_likeness(self, query: np.ndarray, entry: int) -> float:
        return likeness.compute_likeness(query, self._cut(entry, self._boxes[entry]))

    def _shifted_likeness(self, query: np.ndarray, entry: int) -> float:
        """Return the best likeness over small shifts of the indexed part.

        Hill climbing: each round takes the best shift, or halves the size of shifts.
        The result is -1 if the best part differs from the query in one place.
        """
        box, shift = self._boxes[entry], _FIRST_SHIFT
        part = self._cut(entry, box)
        best = likeness.compute_likeness(query, part)
        for _ in range(_SHIFT_ROUNDS):
            if not _MIN_TO_SHIFT <= best <= _ENOUGH:
                break
            moves = shift * np.concatenate([-_SHIFTS, _SHIFTS])
            boxes = np.clip(box + moves, 0.0, 1.0)
            parts = [self._cut(entry, moved) for moved in boxes]
            found = [likeness.compute_likeness(query, moved) for moved in parts]
            top = int(np.argmax(found))
            if found[top] > best:
                best, box, part = found[top], boxes[top], parts[top]
            else:
                shift /= 2
        differs = best > _MIN_TO_SHIFT and likeness.differs_locally(part, query)
        return -1.0 if differs else best
