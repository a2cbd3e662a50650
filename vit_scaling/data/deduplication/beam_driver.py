"""De-duplication as Apache Beam pipelines: near-duplicates, repeats, the copy.

Every step is linear in the number of images. What workers hand back (which records go,
a line a shard) passes through text files in the output folder, which all must see.
"""
# SPDX-License-Identifier: Apache-2.0

import ast
import dataclasses
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from vit_scaling.data.deduplication import cleaning, fingerprints, internal_duplicates
from vit_scaling.data.deduplication.fingerprints import Fingerprint
from vit_scaling.data.deduplication.internal_duplicates import Candidate, Member
from vit_scaling.data.deduplication.matching import Match, NearDuplicates, Thresholds
from vit_scaling.data.deduplication.removal_report import Found, Removal
from vit_scaling.data.deduplication.shard_copying import ShardCopy, copy_shard
from vit_scaling.data.examples import feature_values, read_example
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing.beam_driver import make_pipeline

_RECORDS_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class BeamWorker:
    """Finds removals and copies shards as Beam pipelines; a `cleaning.Worker`.

    Args:
        runner: Beam's name of the runner.
        options: For the runner.
    """

    runner: str
    options: Sequence[str] = ()

    def find(
        self,
        train: TFRecords,
        against: Sequence[TFRecords],
        *,
        thresholds: Thresholds,
        repeats: bool,
        folder: str,
    ) -> Found:
        """Return which training records go, and how many images did not decode."""
        found = Found([], 0)
        if against:
            rows = self._rows(folder, _near(train, against, thresholds))
            found = _found(rows, len(against))
        if repeats:
            gone = frozenset(removal.record for removal in found.removals)
            rows = self._rows(folder, _repeated(train, gone, thresholds))
            more = _found(rows)
            both = [*found.removals, *more.removals]
            found = Found(
                sorted(both, key=lambda removal: removal.record),
                more.unreadable,
                found.unreadable_against,
            )
        return found

    def copy(self, tasks: list[ShardCopy], folder: str) -> list[dict[str, Any]]:
        """Copy shards; return their rows in the same order."""

        def steps(made: Any) -> Any:
            import apache_beam as beam  # pip install "vit_scaling[beam]"

            return (
                made
                | "shards" >> beam.Create(tasks)
                | "spread" >> beam.Reshuffle()
                | "copy" >> beam.Map(_copied)
            )

        rows = {row["file"]: row for (row,) in self._rows(folder, steps)}
        return [rows[os.path.basename(task.path)] for task in tasks]

    def _rows(self, folder: str, steps: Callable[[Any], Any]) -> list[tuple[Any, ...]]:
        """Run a pipeline and return the tuples that it ends in, sorted."""
        import apache_beam as beam  # pip install "vit_scaling[beam]"

        place = os.path.join(folder, ".beam")
        shutil.rmtree(place, ignore_errors=True)
        os.makedirs(place)
        with make_pipeline(self.runner, self.options) as made:
            _ = (
                steps(made)
                | "text" >> beam.Map(repr)
                | "list" >> beam.io.WriteToText(os.path.join(place, "rows"))
            )
        rows = [
            ast.literal_eval(line)
            for path in tf.io.gfile.glob(os.path.join(place, "rows*"))
            for line in tf.io.gfile.GFile(path)
        ]
        shutil.rmtree(place)
        return sorted(rows, key=repr)


def _near(
    train: TFRecords, against: Sequence[TFRecords], thresholds: Thresholds
) -> Callable[[Any], Any]:
    """Return the steps that hold a training set against evaluation sets."""
    places = [
        (number, record)
        for number, source in enumerate(against)
        for record in range(source.index().num_records)
    ]

    def steps(made: Any) -> Any:
        import apache_beam as beam  # pip install "vit_scaling[beam]"

        hashed = (
            made
            | "evaluation images" >> beam.Create(places)
            | "spread them" >> beam.Reshuffle()
            | "hash them" >> beam.Map(_hash_evaluation, list(against))
        )
        index = (
            hashed
            | "readable" >> beam.Filter(lambda row: row[1] is not None)
            | "gather" >> beam.combiners.ToList()
            | "index" >> beam.Map(_index, thresholds)
        )
        unreadable = (
            hashed
            | "unreadable" >> beam.Filter(lambda row: row[1] is None)
            | "name" >> beam.Map(lambda row: row[0])
        )
        found = (
            made
            | "training images" >> beam.Create(_ranges(train))
            | "spread" >> beam.Reshuffle()
            | "match" >> beam.FlatMap(_match, train, beam.pvalue.AsSingleton(index))
        )
        return (found, unreadable) | "both" >> beam.Flatten()

    return steps


def _repeated(
    train: TFRecords, gone: frozenset[int], thresholds: Thresholds
) -> Callable[[Any], Any]:
    """Return the steps that find repeats among what is not gone already."""

    def steps(made: Any) -> Any:
        import apache_beam as beam  # pip install "vit_scaling[beam]"

        prints = (
            made
            | "images" >> beam.Create(_ranges(train))
            | "spread" >> beam.Reshuffle()
            | "hash" >> beam.FlatMap(_hash_training, train, gone)
        )
        unreadable = prints | "unreadable" >> beam.Filter(lambda row: len(row) == 1)
        found = (
            prints
            | "readable" >> beam.Filter(lambda row: len(row) == 2)
            | "buckets" >> beam.GroupByKey()
            | "candidates" >> beam.FlatMap(_candidates, thresholds)
            | "by image" >> beam.GroupByKey()
            | "confirm" >> beam.FlatMap(_confirm, train, thresholds)
        )
        return (found, unreadable) | "both" >> beam.Flatten()

    return steps


def _ranges(train: TFRecords) -> list[tuple[int, int]]:
    total = train.index().num_records
    return [
        (first, min(total, first + _RECORDS_AT_ONCE))
        for first in range(0, total, _RECORDS_AT_ONCE)
    ]


def _hash_evaluation(
    place: tuple[int, int], against: list[TFRecords]
) -> tuple[tuple[int, int], Fingerprint | None]:
    """Return an image's (set, record) and fingerprint, or None: unreadable."""
    number, record = place
    return place, _print(against[number], record, fingerprints.of_evaluation)


def _index(
    found: list[tuple[Any, Fingerprint]], thresholds: Thresholds
) -> NearDuplicates | None:
    if not found:
        return None  # cleaning.py says so, and what to do.
    found = sorted(found, key=lambda pair: pair[0])  # In the order of one process.
    keys, prints = zip(*found, strict=True)
    return NearDuplicates(keys, prints, thresholds)


def _match(
    part: tuple[int, int], train: TFRecords, judge: NearDuplicates | None
) -> Iterator[tuple[Any, ...]]:
    """Yield (record, set, place, distance, likeness), or (record,): unreadable."""
    for record in range(*part):
        one = _print(train, record, fingerprints.of_training)
        match = judge.match(one) if judge and one else None
        if one is None:
            yield (record,)
        elif match:
            yield record, *match.key, int(match.distance), float(match.likeness)


def _print(
    source: TFRecords, record: int, make: Callable[[bytes], Fingerprint]
) -> Fingerprint | None:
    try:
        example = read_example(source.index(), record)
        return make(feature_values(example, source.features.image)[0])
    except Exception:  # As in cleaning.py: verify_tfrecords names such records.
        return None


def _hash_training(
    part: tuple[int, int], train: TFRecords, gone: frozenset[int]
) -> Iterator[tuple[Any, ...]]:
    """Yield (bucket, member) for each bucket of each image, or (record,)."""
    for record in range(*part):
        one = _print(train, record, fingerprints.of_training)
        if one is None:
            yield (record,)
        elif record not in gone:
            for member in internal_duplicates.members(
                record, fingerprints.of_whole(one.pixels)
            ):
                plain = struct.pack("<Q?QQ", *dataclasses.astuple(member))
                for number, mask in enumerate(internal_duplicates.masks()):
                    yield struct.pack("<BQ", number, member.hash & mask), plain


class _Bucket:
    """Members of a Beam group, unpacked anew each time they are gone through."""

    def __init__(self, packed: Iterable[bytes]) -> None:
        self._packed = packed

    def __iter__(self) -> Iterator[Member]:
        return (Member(*struct.unpack("<Q?QQ", one)) for one in self._packed)


def _candidates(
    group: tuple[bytes, Iterable[bytes]], thresholds: Thresholds
) -> Iterator[tuple[int, tuple[int, int, bool]]]:
    for record, one in internal_duplicates.candidates(_Bucket(group[1]), thresholds):
        yield record, (one.distance, one.record, one.mirrored)


def _confirm(
    found: tuple[int, Iterable[tuple[int, int, bool]]],
    train: TFRecords,
    thresholds: Thresholds,
) -> Iterator[tuple[Any, ...]]:
    def pixels_of(record: int) -> Any:
        return cleaning.small_picture(train, record)

    record, candidates = found
    match = internal_duplicates.confirmed(
        (Candidate(*one) for one in candidates),
        pixels_of(record),
        pixels_of,
        thresholds,
    )
    if match:
        yield record, -1, match.key, match.distance, float(match.likeness)


def _copied(task: ShardCopy) -> tuple[dict[str, Any]]:
    return (copy_shard(task),)


def _found(rows: Iterable[tuple[Any, ...]], sets: int = 0) -> Found:
    """Return what rows of 5 (removals), 1 and 2 (unreadable) numbers say."""
    found, unreadable, against = [], 0, [0] * sets
    for row in rows:
        if len(row) == 1:
            unreadable += 1
            continue
        if len(row) == 2:
            against[row[0]] += 1
            continue
        record, number, place, distance, likeness = row
        found.append(Removal(record, number, Match(place, distance, likeness)))
    rising = sorted(found, key=lambda removal: removal.record)
    return Found(rising, unreadable, tuple(against))
