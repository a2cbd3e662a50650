"""Search for near-duplicates and copy shards with Apache Beam.

Every step is linear in the number of images. Results pass through text files in the
output folder, which all workers must see.
"""
# SPDX-License-Identifier: Apache-2.0

import ast
import dataclasses
import pathlib
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from vit_scaling.data.deduplication import internal_duplicates
from vit_scaling.data.deduplication.fingerprints import Fingerprint
from vit_scaling.data.deduplication.internal_duplicates import BucketEntry, Candidate
from vit_scaling.data.deduplication.matching import NearDuplicateIndex
from vit_scaling.data.deduplication.search import (
    Place,
    Removal,
    Search,
    SearchResult,
    Unreadable,
)
from vit_scaling.data.deduplication.shard_copying import ShardCopy, copy_shard
from vit_scaling.data.writing.beam_driver import make_pipeline

_RECORDS_PER_ELEMENT = 256
_ENTRY = struct.Struct("<Q?QQ")  # The fields of a `BucketEntry`: 25 bytes.
_BUCKET_KEY = struct.Struct("<BQ")


@dataclasses.dataclass(frozen=True)
class BeamDriver:
    """Runs everything as Beam pipelines; a `cleaning.Driver`.

    Args:
        runner: Beam's name of the runner.
        options: Options of the runner.
        output_dir: Folder in which results are exchanged; all workers must see it.
    """

    runner: str
    options: Sequence[str]
    output_dir: str

    def run_search(self, search: Search) -> SearchResult:
        """Find the training records to remove."""

        def add_steps(pipeline: Any) -> Any:
            import apache_beam as beam  # pip install "vit_scaling[beam]"

            images, unreadable = (
                pipeline
                | "evaluation records" >> beam.Create(_list_places(search))
                | "spread evaluation records" >> beam.Reshuffle()
                | "fingerprint" >> beam.Map(_fingerprint, search)
                | "unreadable" >> beam.Partition(_partition, 2, Unreadable)
            )
            index = (
                images
                | "gather" >> beam.combiners.ToList()
                | "build index" >> beam.Map(search.build_index)
            )
            near, entries = (
                pipeline
                | "training records" >> beam.Create(_list_ranges(search))
                | "spread training records" >> beam.Reshuffle()
                | "examine"
                >> beam.FlatMap(_examine, search, beam.pvalue.AsSingleton(index))
                | "entries" >> beam.Partition(_partition, 2, BucketEntry)
            )
            internal = (
                entries
                | "put into buckets" >> beam.FlatMap(_put_into_buckets)
                | "group by bucket" >> beam.GroupByKey()
                | "find candidates" >> beam.FlatMap(_find_candidates, search)
                | "group by record" >> beam.GroupByKey()
                | "confirm" >> beam.FlatMapTuple(search.confirm_internal_duplicate)
            )
            return (
                (near, internal, unreadable)
                | "join" >> beam.Flatten()
                | "to tuples" >> beam.Map(dataclasses.astuple)
            )

        rows = self._run(add_steps)
        outcomes = [Removal(*r) if len(r) == 5 else Unreadable(*r) for r in rows]
        return search.collect_outcomes(outcomes)

    def copy_shards(self, tasks: Sequence[ShardCopy]) -> list[dict[str, Any]]:
        """Copy shards; return their manifest rows in the same order."""

        def add_steps(pipeline: Any) -> Any:
            import apache_beam as beam  # pip install "vit_scaling[beam]"

            return (
                pipeline
                | "shards" >> beam.Create(tasks)
                | "spread" >> beam.Reshuffle()
                | "copy" >> beam.Map(copy_shard)
            )

        rows = {row["file"]: row for row in self._run(add_steps)}
        return [rows[pathlib.Path(task.path).name] for task in tasks]

    def _run(self, add_steps: Callable[[Any], Any]) -> list[Any]:
        """Run a pipeline of some steps and return the values that it ends with.

        Args:
            add_steps: From an empty pipeline to a collection of Python literals.
        """
        import apache_beam as beam  # pip install "vit_scaling[beam]"

        folder = pathlib.Path(self.output_dir, ".beam")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with make_pipeline(self.runner, self.options) as pipeline:
            _ = (
                add_steps(pipeline)
                | "to text" >> beam.Map(repr)
                | "write" >> beam.io.WriteToText(str(folder / "rows"))
            )
        rows = [
            ast.literal_eval(line)
            for path in folder.glob("rows*")
            for line in path.read_text(encoding="utf-8").splitlines()
        ]
        shutil.rmtree(folder)
        return rows


def _list_places(search: Search) -> list[Place]:
    return [
        (number, record)
        for number, source in enumerate(search.against)
        for record in range(source.index().num_records)
    ]


def _list_ranges(search: Search) -> list[range]:
    records, step = range(search.train.index().num_records), _RECORDS_PER_ELEMENT
    return [records[first : first + step] for first in records[::step]]


def _partition(value: Any, partitions: int, type_: type) -> int:
    """Return the number of a value's partition: 1 for instances of the type, else 0."""
    del partitions
    return int(isinstance(value, type_))


def _fingerprint(
    place: Place, search: Search
) -> tuple[Place, Fingerprint] | Unreadable:
    data = search.dataset(place[0]).index().read_record(place[1])
    return search.fingerprint_evaluation_record(place, data)


def _examine(
    records: range, search: Search, index: NearDuplicateIndex | None
) -> Iterator[Removal | Unreadable | BucketEntry]:
    for record in records:
        data = search.train.index().read_record(record)
        yield from search.examine_training_record(record, data, index)


def _put_into_buckets(entry: BucketEntry) -> Iterator[tuple[bytes, bytes]]:
    """Yield (key, packed entry) for each bucket of an entry."""
    packed = _ENTRY.pack(*dataclasses.astuple(entry))
    for number, mask in enumerate(internal_duplicates.bucket_masks()):
        yield _BUCKET_KEY.pack(number, entry.hash & mask), packed


class _Bucket:
    """The entries of a Beam group, unpacked again at each iteration."""

    def __init__(self, packed: Iterable[bytes]) -> None:
        self._packed = packed

    def __iter__(self) -> Iterator[BucketEntry]:
        return (BucketEntry(*_ENTRY.unpack(entry)) for entry in self._packed)


def _find_candidates(
    group: tuple[bytes, Iterable[bytes]], search: Search
) -> Iterator[tuple[int, Candidate]]:
    bucket = _Bucket(group[1])
    return internal_duplicates.find_candidates(bucket, search.thresholds)
