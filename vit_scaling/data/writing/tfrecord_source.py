"""Records of a finished set as images to write again: re-sharding, TFDS, subsets."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from vit_scaling.data import record_framing, subsets
from vit_scaling.data.reading import records_from
from vit_scaling.data.record_index import (
    RecordIndex,
    Shard,
    cached,
    file_size,
    keys_kind,
    read_bytes,
    refuse_or_warn,
    store,
)
from vit_scaling.data.tfrecords import Features
from vit_scaling.data.writing.image_entries import Entry, Light

_BLANK = np.uint64(2**64 - 1)  # The hash of a key that cannot be read.
_BUFFER_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Records(Light):
    """The images of a `TFRecords` or `TFDS` source.

    Args:
        source: The set.
        keep: Rising record numbers to take; None is all.
    """

    source: Any
    keep: tuple[int, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "keep": None}  # A reader needs no list.

    @functools.cached_property
    def _index(self) -> RecordIndex:
        return self.source.index()

    def class_names(self) -> tuple[str, ...]:
        """Return the set's names, or the numbers 0 to the largest label."""
        names = self.source.class_names
        if names is not None:
            return names
        labels = [number for row in self._listed for number in row[2]]
        return tuple(str(number) for number in range(max(labels, default=-1) + 1))

    def entries(self) -> list[Entry]:
        """Return the records, in order; reads them all once for keys and labels.

        Raises:
            ValueError: A record has no key or label, or a label that is no class.
        """
        names = self.class_names()
        return [
            Entry(key, self._named(names, labels, number), number, size)
            for number, key, labels, size in self._listed
        ]

    def _named(
        self, names: tuple[str, ...], labels: list[int], number: int
    ) -> tuple[str, ...]:
        """Return the classes of labels; -1 would be Python's last one."""
        wrong = [label for label in labels if not 0 <= label < len(names)]
        if wrong:
            raise ValueError(
                f"{_place(self._index, number)}: labels must be in 0…{len(names) - 1} "
                f"(the class names); received {wrong}. Mend the record, or give the "
                "set's `label_offset` (--label_offset)."
            )
        return tuple(names[label] for label in labels)

    def read(self, entry: Entry) -> bytes:
        """Return the encoded image of a record."""
        example = read_example(self._index, entry.place)
        return values(example, self.source.features.image)[0]

    @functools.cached_property
    def _listed(self) -> list[tuple[int, str, list[int], int]]:
        features = self.source.features
        wanted = None if self.keep is None else set(self.keep)
        found = []
        for number, data in read_all(self._index):
            if wanted is not None and number not in wanted:
                continue
            try:
                example = parsed(data)
                labels = [
                    n + features.label_offset for n in values(example, features.label)
                ]
                row = (number, self._key(example, number), labels, len(data))
            except (ValueError, TypeError) as error:
                where = _place(self._index, number)
                raise ValueError(f"{where}: {error}") from error
            found.append(row)
        return found

    def _key(self, example: tf.train.Example, number: int) -> str:
        features = self.source.features
        if features.key != features.image:
            (key,) = values(example, features.key)
            return key.decode()
        path, in_file = self._index.locate(number)
        return f"{path.rsplit('/', 1)[-1]}:{in_file}"


def parsed(data: bytes) -> tf.train.Example:
    """Return a record's example.

    Raises:
        ValueError: It is none.
    """
    try:
        return tf.train.Example.FromString(data)
    except Exception as error:  # protobuf's own kind, whose place has moved.
        raise ValueError("it is no tf.train.Example") from error


def _place(index: RecordIndex, number: int) -> str:
    path, in_file = index.locate(number)
    return f"{path}, record {in_file}"


def values(example: tf.train.Example, key: str) -> Any:
    """Return a feature's values; bytes or int64.

    Raises:
        ValueError: The example has no such feature.
    """
    feature = example.features.feature.get(key)
    if feature is None or feature.WhichOneof("kind") is None:
        raise ValueError(
            f"A record has no feature {key!r}, but "
            f"{', '.join(sorted(example.features.feature))}; see `Features`."
        )
    return getattr(feature, feature.WhichOneof("kind")).value


def read_example(index: RecordIndex, number: int) -> tf.train.Example:
    """Return one record, found by its number.

    Raises:
        ValueError: It is no example; names its file.
    """
    try:
        return parsed(read_record(index, number))
    except ValueError as error:
        raise ValueError(f"{_place(index, number)}: {error}.") from error


def read_record(index: RecordIndex, number: int) -> bytes:
    """Return one record's bytes, found by its number; no checksum is looked at."""
    shard = int(np.searchsorted(index.starts, number, side="right")) - 1
    path, _ = index.locate(number)
    offset = int(offsets_of(index, shard)[number - index.starts[shard]])
    length = int.from_bytes(read_bytes(path, offset, 8), "little")
    return read_bytes(path, offset + record_framing.HEADER_BYTES, length)


def read_all(index: RecordIndex) -> Iterator[tuple[int, bytes]]:
    """Yield (number, bytes) of every record; a damaged one raises, named.

    Raises:
        ValueError: A record's bytes fail their checksum.
    """
    rows = zip(index.shards, index.starts, index.counts, strict=False)
    for shard, start, count in rows:
        number = int(start)
        records = tf.data.TFRecordDataset(shard.path).skip(shard.skip).take(count)
        try:
            for data in records.prefetch(64).as_numpy_iterator():
                yield number, data
                number += 1
        except tf.errors.DataLossError as error:
            path, in_file = index.locate(number)
            raise ValueError(
                f"{path}, record {in_file}: its bytes fail their checksum "
                f"({error.message})."
            ) from error


def key_hashes(index: RecordIndex, features: Features) -> np.ndarray:
    """Return the hash of every record's key, uint64 (records,).

    Sets of our writer have them in files beside the shards; others are read once, and
    the hashes kept. If the index skips bad records, one whose key cannot be read gets
    the largest hash: it is in no subset that leaves anything out.

    Raises:
        ValueError: A key cannot be read, and the index stops at bad records; or none
            can.
    """
    parts = [np.zeros(0, np.uint64)]
    for number, shard in enumerate(index.shards):
        hashes = _of_shard(shard, features, index.on_bad_record)
        parts.append(hashes[shard.skip : shard.skip + int(index.counts[number])])
    found = np.concatenate(parts)
    if len(found) and np.all(found == _BLANK):
        raise ValueError(
            f"`Features.key`={features.key!r} must name a feature of the records; none "
            f"of {len(found)} has it. Give the right one."
        )
    return found


def _of_shard(shard: Shard, features: Features, on_bad_record: str) -> np.ndarray:
    """Return the hashes of a whole file, from its side file if that is of this key."""
    size = file_size(shard.path)
    file = RecordIndex(
        [dataclasses.replace(shard, skip=0, take=None)], on_bad_record=on_bad_record
    )
    kinds = [keys_kind(features.key, size)]
    # Our writer's earlier name says neither key nor size; the manifest vouches for it.
    if features.key == Features().key and shard.size_bytes == size:
        kinds.append("keys")
    hashes = cached(shard.path, kinds, file.num_records)
    if hashes is not None:
        return hashes
    hashes = _hash_keys(file, features.key)
    # With blanks it is not kept: the file may be mended without a change of its size.
    if not np.any(hashes == _BLANK):
        store(shard.path, kinds[0], hashes)
    return hashes


def _hash_keys(file: RecordIndex, key: str) -> np.ndarray:
    found = np.full(file.num_records, _BLANK)
    offsets = file.offsets(0).tolist()
    for number, data in enumerate(read_shard(file.shards[0].path, offsets)):
        try:
            if data is None:
                raise ValueError("its bytes fail their checksum")
            (text,) = values(parsed(data), key)
            found[number] = subsets.key_hash(text)
        except (ValueError, TypeError) as error:
            refuse_or_warn(f"{_place(file, number)}: {error}.", file.on_bad_record)
    return found


def read_shard(path: str, offsets: list[int]) -> Iterator[bytes | None]:
    """Yield the records at `offsets` of a file; None where the checksum fails.

    Args:
        path: The file.
        offsets: Of records that follow each other, to the end of the file or before.
    """

    def behind(offset: tf.Tensor) -> tf.data.Dataset:
        return records_from(path, offset, buffer_bytes=_BUFFER_BYTES)

    number = 0
    while number < len(offsets):
        start = tf.data.Dataset.from_tensors(tf.constant(offsets[number], tf.int64))
        records = start.flat_map(behind).take(len(offsets) - number)
        try:
            for data in records.as_numpy_iterator():
                number += 1
                yield data
        except tf.errors.DataLossError:
            number += 1  # Go on behind it.
            yield None


@functools.lru_cache(maxsize=256)
def offsets_of(index: RecordIndex, shard: int) -> np.ndarray:
    """Return a shard's offsets, kept for the next call."""
    return index.offsets(shard)
