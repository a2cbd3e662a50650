"""Search for near-duplicates and copy shards with Apache Beam.

Every step is linear in the number of images. Workers make the ranges of records that
they read, and only similar hashes are compared. The search, the index of the evaluation
images and the results pass through files in the output folder, which all workers must
see: what the launcher holds does not grow with the number of images, but with that of
the removed ones.
"""
# SPDX-License-Identifier: Apache-2.0

import ast
import dataclasses
import functools
import os
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from etils import epath

from vit_scaling.data.deduplication import internal_duplicates, shared_objects
from vit_scaling.data.deduplication.fingerprints import Fingerprint
from vit_scaling.data.deduplication.internal_duplicates import BucketEntry, Candidate
from vit_scaling.data.deduplication.matching import Thresholds
from vit_scaling.data.deduplication.search import (
    TRAINING_SET,
    Place,
    Removal,
    Search,
    SearchResult,
    Unreadable,
)
from vit_scaling.data.deduplication.shard_copying import ShardCopy, copy_shard
from vit_scaling.data.writing.beam_driver import make_pipeline

_FOLDER = ".beam"  # In the output folder; removed at the end.
_RECORDS_PER_ELEMENT = 256
_Range = tuple[int, int, int]  # Number of a set, first record, end.
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
        folder = epath.Path(self.output_dir) / _FOLDER
        folder.rmtree(missing_ok=True)
        folder.mkdir(parents=True)
        # Its index too, so that no worker looks for the shards again.
        search.train.index()
        path = str(folder / f"search-{uuid.uuid4().hex}")  # Loads are cached.
        shared_objects.store(path, search)

        def add_steps(pipeline: Any) -> Any:
            import apache_beam as beam  # pip install "vit_scaling[beam]"

            images, unreadable = (
                pipeline
                | "evaluation sets" >> beam.Create(list(range(len(search.against))))
                | "evaluation ranges" >> beam.FlatMap(_make_ranges, path)
                | "spread evaluation records" >> beam.Reshuffle()
                | "fingerprint" >> beam.FlatMap(_fingerprint, path)
                | "unreadable" >> beam.Partition(_partition, 2, Unreadable)
            )
            index = (
                images
                | "gather" >> beam.combiners.ToList()
                | "build index" >> beam.Map(_store_index, path)
            )
            near, entries = (
                pipeline
                | "training set" >> beam.Create([TRAINING_SET])
                | "training ranges" >> beam.FlatMap(_make_ranges, path)
                | "spread training records" >> beam.Reshuffle()
                | "examine"
                >> beam.FlatMap(_examine, path, beam.pvalue.AsSingleton(index))
                | "entries" >> beam.Partition(_partition, 2, BucketEntry)
            )
            internal = (
                entries
                | "put into buckets" >> beam.FlatMap(_put_into_buckets)
                | "group by bucket" >> beam.GroupByKey()
                | "find candidates" >> beam.FlatMap(_find_candidates, search.thresholds)
                | "group by record" >> beam.GroupByKey()
                | "confirm" >> beam.FlatMap(_confirm, path)
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
        return [rows[os.path.basename(task.path)] for task in tasks]

    def _run(self, add_steps: Callable[[Any], Any]) -> list[Any]:
        """Run a pipeline of some steps and return the values that it ends with.

        Args:
            add_steps: From an empty pipeline to a collection of Python literals.
        """
        import apache_beam as beam  # pip install "vit_scaling[beam]"

        folder = epath.Path(self.output_dir) / _FOLDER
        folder.mkdir(parents=True, exist_ok=True)
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
        folder.rmtree()
        return rows


@functools.lru_cache(maxsize=2)
def _load(path: str) -> Any:
    """Return a shared object, loaded once in each process."""
    return shared_objects.load(path)


def _make_ranges(number: int, path: str) -> Iterator[_Range]:
    """Yield the ranges of an evaluation set's records, or the training set's."""
    records = _load(path).dataset(number).index().num_records
    for first in range(0, records, _RECORDS_PER_ELEMENT):
        yield number, first, min(records, first + _RECORDS_PER_ELEMENT)


def _read_range(search: Search, part: _Range) -> Iterator[tuple[int, bytes]]:
    number, first, end = part
    index = search.dataset(number).index()
    return ((record, index.read_record(record)) for record in range(first, end))


def _partition(value: Any, partitions: int, type_: type) -> int:
    """Return the number of a value's partition: 1 for instances of the type, else 0."""
    del partitions
    return int(isinstance(value, type_))


def _fingerprint(
    part: _Range, path: str
) -> Iterator[tuple[Place, Fingerprint] | Unreadable]:
    search = _load(path)
    for record, data in _read_range(search, part):
        yield search.fingerprint_evaluation_record((part[0], record), data)


def _store_index(images: list[tuple[Place, Fingerprint]], path: str) -> str:
    """Store the index of the evaluation images, which is too large for a message."""
    index_path = f"{path}-index"
    shared_objects.store(index_path, _load(path).build_index(images))
    return index_path


def _examine(
    part: _Range, path: str, index_path: str
) -> Iterator[Removal | Unreadable | BucketEntry]:
    search, index = _load(path), _load(index_path)
    for record, data in _read_range(search, part):
        yield from search.examine_training_record(record, data, index)


def _confirm(group: tuple[int, Iterable[Candidate]], path: str) -> Iterator[Removal]:
    yield from _load(path).confirm_internal_duplicate(*group)


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
    group: tuple[bytes, Iterable[bytes]], thresholds: Thresholds
) -> Iterator[tuple[int, Candidate]]:
    bucket = _Bucket(group[1])
    return internal_duplicates.find_candidates(bucket, thresholds)
