"""The steps of the search for near-duplicates; the drivers map them over the data.

1. `fingerprint_evaluation_record` of every evaluation image, then `build_index`.
2. `examine_training_record` of every training image. It is unreadable, a near-duplicate
   of an evaluation image, or an entry for the search inside the training set.
3. The entries are grouped by bucket, the candidates of each bucket are grouped by
   record (`internal_duplicates`), and `confirm_internal_duplicate` compares the pixels.
4. `collect_outcomes` groups the outcomes by shard, or a driver does.

Each step depends on its arguments and the records only, so all drivers find the same.
"""
# SPDX-License-Identifier: Apache-2.0

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from vit_scaling.data.deduplication import fingerprints, internal_duplicates
from vit_scaling.data.deduplication.fingerprints import Fingerprint
from vit_scaling.data.deduplication.internal_duplicates import BucketEntry, Candidate
from vit_scaling.data.deduplication.matching import NearDuplicateIndex, Thresholds
from vit_scaling.data.examples import feature_values, parse_example, read_example
from vit_scaling.data.tfrecords import TFRecords

TRAINING_SET = -1  # Instead of the number of an evaluation set.
Place = tuple[int, int]  # Number of an evaluation set and of a record in it.


@dataclasses.dataclass(frozen=True)
class Removal:
    """A training record to remove, and the image that it duplicates.

    Args:
        record: Number in the training set.
        dataset: Number of the original's evaluation set, or `TRAINING_SET`.
        original: Number of the original in that set.
        distance: Between the hashes, in bits.
        likeness: Correlation of the pixels.
    """

    record: int
    dataset: int
    original: int
    distance: int
    likeness: float


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """A record whose image does not decode, of an evaluation set or `TRAINING_SET`."""

    dataset: int
    record: int


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Args:
        removals: Training records to remove, in order, by the number of their shard.
        unreadable: Number of training images that do not decode; they are kept.
        unreadable_against: The same number of each evaluation set.
    """

    removals: Mapping[int, Sequence[Removal]]
    unreadable: int
    unreadable_against: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Search:
    """A search for the training images that are near-duplicates.

    Args:
        train: The training set.
        against: The evaluation sets.
        thresholds: When two images are near-duplicates.
        include_internal: Also search for duplicates inside the training set.

    Raises:
        ValueError: There is nothing to search for.
    """

    train: TFRecords
    against: Sequence[TFRecords]
    thresholds: Thresholds = dataclasses.field(default_factory=Thresholds)
    include_internal: bool = False

    def __post_init__(self) -> None:
        if not self.against and not self.include_internal:
            raise ValueError(
                "`against` must name evaluation sets unless `include_internal` "
                "(--repeats) is set; received none."
            )

    def dataset(self, number: int) -> TFRecords:
        """Return an evaluation set by its number, or the training set."""
        return self.train if number == TRAINING_SET else self.against[number]

    def fingerprint_evaluation_record(
        self, place: Place, data: bytes
    ) -> tuple[Place, Fingerprint] | Unreadable:
        """Return the fingerprint of an evaluation image with its place."""
        make = fingerprints.fingerprint_evaluation_image
        fingerprint = _fingerprint(data, self.dataset(place[0]), make)
        return (place, fingerprint) if fingerprint else Unreadable(*place)

    def build_index(
        self, images: Iterable[tuple[Place, Fingerprint]]
    ) -> NearDuplicateIndex | None:
        """Build the index of all evaluation images, in any order; None without any."""
        ordered = sorted(images, key=lambda image: image[0])
        if not ordered:
            return None
        places, prints = zip(*ordered, strict=True)
        return NearDuplicateIndex(places, prints, self.thresholds)

    def examine_training_record(
        self, record: int, data: bytes, index: NearDuplicateIndex | None
    ) -> Iterator[Removal | Unreadable | BucketEntry]:
        """Yield what a training record contributes to the search.

        Args:
            record: Its number.
            data: Its bytes.
            index: The evaluation images.
        """
        make = fingerprints.fingerprint_training_image
        fingerprint = _fingerprint(data, self.train, make)
        if fingerprint is None:
            yield Unreadable(TRAINING_SET, record)
            return
        match = index.find(fingerprint) if index else None
        if match:
            dataset, original = match.key
            closeness = match.distance, match.likeness
            yield Removal(record, dataset, original, *closeness)
        elif self.include_internal:
            yield from internal_duplicates.make_entries(record, fingerprint.thumbnail)

    def confirm_internal_duplicate(
        self, record: int, candidates: Iterable[Candidate]
    ) -> Iterator[Removal]:
        """Yield the removal of a training image if a candidate is its original.

        Args:
            record: Number of the image.
            candidates: Earlier images with similar hashes, in any order. One may occur
                several times.
        """
        match = internal_duplicates.confirm_original(
            record, candidates, self._read_thumbnail, self.thresholds
        )
        if match:
            original, closeness = match.key, (match.distance, match.likeness)
            yield Removal(record, TRAINING_SET, original, *closeness)

    def _read_thumbnail(self, record: int) -> np.ndarray:
        return fingerprints.make_thumbnail(read_image(self.train, record))

    def collect_outcomes(
        self, outcomes: Iterable[Removal | Unreadable]
    ) -> SearchResult:
        """Return the result of the search from its outcomes, given in any order.

        Raises:
            ValueError: No image of a set decodes.
        """
        removals: dict[int, list[Removal]] = {}
        unreadable: collections.Counter[int] = collections.Counter()
        for outcome in outcomes:
            if isinstance(outcome, Removal):
                shard = self.train.index().shard_of(outcome.record)
                removals.setdefault(shard, []).append(outcome)
            else:
                unreadable[outcome.dataset] += 1
        for found in removals.values():
            found.sort(key=lambda removal: removal.record)
        return self.make_result(removals, unreadable)

    def make_result(
        self, removals: Mapping[int, Sequence[Removal]], unreadable: Mapping[int, int]
    ) -> SearchResult:
        """Return the result of the search.

        Args:
            removals: See `SearchResult`.
            unreadable: Number of images that do not decode, by the number of their set.

        Raises:
            ValueError: No image of a set decodes.
        """
        for number in (TRAINING_SET, *range(len(self.against))):
            self.check_readable(number, unreadable.get(number, 0))
        return SearchResult(
            removals,
            unreadable.get(TRAINING_SET, 0),
            tuple(unreadable.get(number, 0) for number in range(len(self.against))),
        )

    def check_readable(self, number: int, unreadable: int) -> None:
        """Raise if no image of a set decodes, as with a wrong feature key.

        Args:
            number: Number of an evaluation set, or `TRAINING_SET`.
            unreadable: Number of its records whose images do not decode.

        Raises:
            ValueError: All of them; the message lists the features of the first record.
        """
        source = self.dataset(number)
        if unreadable < source.index().num_records:
            return
        try:
            names = ", ".join(sorted(read_example(source.index(), 0).features.feature))
        except ValueError:
            names = "none"
        argument = "train" if number == TRAINING_SET else "against"
        raise ValueError(
            f"`{argument}` must hold images that decode; received {source.pattern!r}: "
            f"none of its {unreadable} records has one in the feature "
            f"{source.features.image!r}. Features of the first: {names}. Give the "
            "right one with --image_key (`Features.image`)."
        )


def _fingerprint(
    data: bytes, source: TFRecords, make: Callable[[bytes], Fingerprint]
) -> Fingerprint | None:
    try:
        return make(feature_values(parse_example(data), source.features.image)[0])
    except Exception:  # Pillow raises many types; verify_tfrecords names such records.
        return None


def read_image(source: TFRecords, record: int) -> bytes:
    """Read the encoded image of a record."""
    example = read_example(source.index(), record)
    return feature_values(example, source.features.image)[0]
