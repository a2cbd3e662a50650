"""Records of a finished set as images to write again: re-sharding, TFDS, subsets."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from vit_scaling.data import framing, subsets
from vit_scaling.data.entries import Entry, Light
from vit_scaling.data.index import RecordIndex, cached, read_bytes
from vit_scaling.data.tfrecords import Features


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
        """Return the records, in order; reads them all once for keys and labels."""
        names = self.class_names()
        return [
            Entry(key, tuple(names[n] for n in labels), number, size)
            for number, key, labels, size in self._listed
        ]

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
            example = tf.train.Example.FromString(data)
            labels = [
                n + features.label_offset for n in values(example, features.label)
            ]
            found.append((number, self._key(example, number), labels, len(data)))
        return found

    def _key(self, example: tf.train.Example, number: int) -> str:
        features = self.source.features
        if features.key != features.image:
            return values(example, features.key)[0].decode()
        path, in_file = self._index.locate(number)
        return f"{path.rsplit('/', 1)[-1]}:{in_file}"


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
    """Return one record, found by its number."""
    shard = int(np.searchsorted(index.starts, number, side="right")) - 1
    path, _ = index.locate(number)
    offset = int(offsets_of(index, shard)[number - index.starts[shard]])
    length = int.from_bytes(read_bytes(path, offset, 8), "little")
    data = read_bytes(path, offset + framing.HEADER_BYTES, length)
    return tf.train.Example.FromString(data)


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
    the hashes kept.
    """
    parts = [np.zeros(0, np.uint64)]
    for number, shard in enumerate(index.shards):
        count = int(index.counts[number])
        file = RecordIndex([dataclasses.replace(shard, skip=0, take=None)])
        whole = file.num_records
        kind = "keys" if features.key != features.image else "imagekeys"
        hashes = cached(
            shard.path, kind, whole, functools.partial(_hash_keys, shard.path, features)
        )
        parts.append(hashes[shard.skip : shard.skip + count])
    return np.concatenate(parts)


def _hash_keys(path: str, features: Features) -> np.ndarray:
    found = []
    for data in tf.data.TFRecordDataset(path).prefetch(64).as_numpy_iterator():
        example = tf.train.Example.FromString(data)
        found.append(subsets.key_hash(values(example, features.key)[0]))
    return np.array(found, np.uint64)


@functools.lru_cache(maxsize=256)
def offsets_of(index: RecordIndex, shard: int) -> np.ndarray:
    """Return a shard's offsets, kept for the next call."""
    return index.offsets(shard)
