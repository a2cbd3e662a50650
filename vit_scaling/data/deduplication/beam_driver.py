"""Search for near-duplicates and copy shards with Apache Beam.

Every step is linear in the number of images. Workers make the ranges of records that
they read, and only similar hashes are compared. The search, the index of the evaluation
images and the results pass through files in the output folder, which all workers must
see: what the launcher holds grows with the number of shards only.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import pickle
import struct
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from vit_scaling.data.deduplication.shard_copying import (
    CopiedShard,
    ShardCopy,
    copy_shard,
)
from vit_scaling.data.writing.beam_driver import make_pipeline
from vit_scaling.io_files import atomic_file

_FOLDER = ".beam"  # In the output folder; removed once the copies are reported.
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
        path = self._new_path("search")
        shared_objects.store(path, search)
        with make_pipeline(self.runner, self.options) as pipeline:
            _add_search(pipeline, search, path)
        unreadable = {
            number: _read(count)
            for number in (TRAINING_SET, *range(len(search.against)))
            if (count := _unreadable_path(path, number)).exists()
        }
        return search.make_result(StoredRemovals(path), unreadable)

    def copy_shards(self, tasks: Sequence[ShardCopy]) -> Iterator[CopiedShard]:
        """Copy shards; yield what is reported of them, in the same order."""
        import apache_beam as beam  # pip install "vit_scaling[beam]"

        path = self._new_path("copies")
        shared_objects.store(path, tasks)
        with make_pipeline(self.runner, self.options) as pipeline:
            _ = (
                pipeline
                | "shards" >> beam.Create(range(len(tasks)))
                | "spread" >> beam.Reshuffle()
                | "copy" >> beam.Map(_copy, path)
            )
        for number in range(len(tasks)):
            yield _read(_copy_path(path, number))
        (epath.Path(self.output_dir) / _FOLDER).rmtree()

    def _new_path(self, name: str) -> str:
        """Return a path that was never used before, because loads are cached."""
        return str(epath.Path(self.output_dir) / _FOLDER / f"{name}-{uuid.uuid4().hex}")


class StoredRemovals(Mapping[int, Sequence[Removal]]):
    """The records to remove, by shard, in one file per shard.

    Args:
        path: Of the search.
    """

    def __init__(self, path: str) -> None:
        self._path = epath.Path(f"{path}-removals")

    def store(self, shard: int, removals: Iterable[Removal]) -> None:
        """Store the records to remove from a shard."""
        ordered = sorted(removals, key=lambda removal: removal.record)
        _write(self._of_shard(shard), ordered)

    def __getitem__(self, shard: int) -> Sequence[Removal]:
        path = self._of_shard(shard)
        if not path.exists():
            raise KeyError(shard)
        removals: Sequence[Removal] = _read(path)
        return removals

    def __iter__(self) -> Iterator[int]:
        files = self._path.parent.glob(f"{self._path.name}-*")
        return iter(sorted(int(file.name.rpartition("-")[2]) for file in files))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _of_shard(self, shard: int) -> epath.Path:
        return self._path.with_name(f"{self._path.name}-{shard}")


def _add_search(pipeline: Any, search: Search, path: str) -> None:
    """Add the steps of a search; the last ones store the results."""
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
        | "examine" >> beam.FlatMap(_examine, path, beam.pvalue.AsSingleton(index))
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
    removals, unreadable = (
        (near, internal, unreadable)
        | "join" >> beam.Flatten()
        | "removals" >> beam.Partition(_partition, 2, Unreadable)
    )
    _ = (
        removals
        | "find shard" >> beam.Map(_with_shard, path)
        | "group by shard" >> beam.GroupByKey()
        | "store removals" >> beam.Map(_store_removals, path)
    )
    _ = (
        unreadable
        | "find set" >> beam.Map(_dataset)
        | "count by set" >> beam.combiners.Count.PerElement()
        | "store counts" >> beam.Map(_store_unreadable, path)
    )


def _write(path: epath.Path, value: Any) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(pickle.dumps(value))


def _read(path: epath.Path) -> Any:
    return pickle.loads(path.read_bytes())


def _unreadable_path(path: str, dataset: int) -> epath.Path:
    return epath.Path(f"{path}-unreadable-{dataset}")


def _copy_path(path: str, shard: int) -> epath.Path:
    return epath.Path(f"{path}-{shard}")


def _with_shard(removal: Removal, path: str) -> tuple[int, Removal]:
    return _load(path).train.index().shard_of(removal.record), removal


def _store_removals(group: tuple[int, Iterable[Removal]], path: str) -> None:
    StoredRemovals(path).store(*group)


def _dataset(unreadable: Unreadable) -> int:
    return unreadable.dataset


def _store_unreadable(count: tuple[int, int], path: str) -> None:
    _write(_unreadable_path(path, count[0]), count[1])


def _copy(shard: int, path: str) -> None:
    _write(_copy_path(path, shard), copy_shard(_load(path)[shard]))


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
