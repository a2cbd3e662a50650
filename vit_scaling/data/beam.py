"""The writer and the search for near-duplicates as Apache Beam pipelines.

Runners are named as Beam names them: DirectRunner in this process (or in several, with
`direct_running_mode=multi_processing` and `direct_num_workers=N`); DataflowRunner,
FlinkRunner and SparkRunner with their own options, on a shared file system.
"""
# SPDX-License-Identifier: Apache-2.0

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from vit_scaling.data import cleaning, fingerprints, writing
from vit_scaling.data.cleaning import Removal
from vit_scaling.data.deduplication import NearDuplicates, Thresholds
from vit_scaling.data.entries import EntrySource
from vit_scaling.data.records_in import read_example, values
from vit_scaling.data.tfrecords import TFRecords

_RECORDS_AT_ONCE = 256


def pipeline(runner: str, options: Sequence[str]) -> Any:
    """Return an empty Beam pipeline.

    Args:
        runner: Beam's name of the runner.
        options: "NAME=VALUE" or "NAME", as Beam's flags without the dashes.
    """
    import apache_beam as beam  # pip install "vit_scaling[beam]"
    from apache_beam.options.pipeline_options import PipelineOptions

    flags = [f"--{option}" for option in options]
    return beam.Pipeline(runner=runner, options=PipelineOptions(flags))


def write_with_beam(
    source: EntrySource,
    *,
    runner: str,
    options: Sequence[str] = (),
    **arguments: Any,
) -> dict[str, Any]:
    """Write a split as `write_tfrecords` does, a shard for each Beam element.

    The files are the same, byte for byte: workers run the very same function. The
    output folder must be seen by all workers.

    Args:
        source: The images.
        runner: Beam's name of the runner.
        options: For the runner.
        **arguments: Those of `write_tfrecords` but `workers`.
    """

    def run(tasks: list[writing.ShardTask]) -> None:
        import apache_beam as beam  # pip install "vit_scaling[beam]"

        with pipeline(runner, options) as made:
            _ = (
                made
                | "shards" >> beam.Create(tasks)
                | "spread" >> beam.Reshuffle()
                | "write" >> beam.Map(_write)
            )

    return writing.write_tfrecords(source, run_elsewhere=run, **arguments)


def _write(task: writing.ShardTask) -> str:
    if task.finished() is None:
        writing.write_shard(task)
    return task.path


def finder(runner: str, options: Sequence[str]) -> cleaning.Finder:
    """Return what finds removals with Beam, for `cleaning.clean`."""

    def find(
        train: TFRecords,
        against: Sequence[TFRecords],
        *,
        thresholds: Thresholds,
        repeats: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[list[Removal], int]:
        del progress
        if repeats:
            raise ValueError(
                "`repeats` inside the training set are found in one process; leave "
                "--runner out, or clean against itself in a second run."
            )
        return _find(train, against, thresholds, runner, options)

    return find


def _find(
    train: TFRecords,
    against: Sequence[TFRecords],
    thresholds: Thresholds,
    runner: str,
    options: Sequence[str],
) -> tuple[list[Removal], int]:
    import tempfile

    import apache_beam as beam  # pip install "vit_scaling[beam]"

    total = train.index().num_records
    ranges = [
        (first, min(total, first + _RECORDS_AT_ONCE))
        for first in range(0, total, _RECORDS_AT_ONCE)
    ]
    places = [
        (number, record)
        for number, source in enumerate(against)
        for record in range(source.index().num_records)
    ]
    folder = tempfile.mkdtemp(prefix="near-duplicates-")
    prefix = os.path.join(folder, "found")
    with pipeline(runner, options) as made:
        prints = (
            made
            | "evaluation images" >> beam.Create(places)
            | "spread them" >> beam.Reshuffle()
            | "hash them" >> beam.FlatMap(_hash_evaluation, list(against))
        )
        index = (
            prints
            | "gather" >> beam.combiners.ToList()
            | "index" >> beam.Map(_index, thresholds)
        )
        _ = (
            made
            | "training images" >> beam.Create(ranges)
            | "spread" >> beam.Reshuffle()
            | "match" >> beam.FlatMap(_match, train, beam.pvalue.AsSingleton(index))
            | "text" >> beam.Map(repr)
            | "list" >> beam.io.WriteToText(prefix)
        )
    return _read_found(prefix)


def _hash_evaluation(
    place: tuple[int, int], against: list[TFRecords]
) -> Iterator[tuple[tuple[int, int], Any]]:
    number, record = place
    source = against[number]
    data = read_example(source.index(), record).SerializeToString()
    one = cleaning.fingerprint_or_none(
        data, source.features.image, fingerprints.of_evaluation
    )
    if one is not None:
        yield place, one


def _index(found: list[tuple[Any, Any]], thresholds: Thresholds) -> NearDuplicates:
    found = sorted(found, key=lambda pair: pair[0])  # In the order of one process.
    keys, prints = zip(*found, strict=True)
    return NearDuplicates(keys, prints, thresholds)


def _match(
    part: tuple[int, int], train: TFRecords, judge: NearDuplicates
) -> Iterator[tuple[Any, ...]]:
    for record in range(*part):
        example = read_example(train.index(), record)
        one = _training_print(example, train.features.image)
        match = judge.match(one) if one else None
        if one is None:
            yield (record,)
        elif match:
            yield record, *match.key, int(match.distance), float(match.likeness)


def _training_print(example: tf.train.Example, key: str) -> Any:
    try:
        return fingerprints.of_training(values(example, key)[0])
    except Exception:  # As in cleaning.py: verify_tfrecords names such records.
        return None


def _read_found(prefix: str) -> tuple[list[Removal], int]:
    import ast

    rows: list[Iterable[Any]] = []
    for path in tf.io.gfile.glob(prefix + "*"):
        with tf.io.gfile.GFile(path) as file:
            rows += [ast.literal_eval(line) for line in file]
    found, unreadable = [], 0
    for row in sorted(map(tuple, rows)):
        if len(row) == 1:
            unreadable += 1
            continue
        record, number, place, distance, likeness = row
        match = cleaning.Match(place, distance, likeness)
        found.append(Removal(record, number, match))
    return found, unreadable
