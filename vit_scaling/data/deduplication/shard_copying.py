"""Copy a shard without some of its records, byte for byte, with its index files."""
# SPDX-License-Identifier: Apache-2.0

import collections
import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vit_scaling.data import files, record_framing, record_index, subsets
from vit_scaling.data.tfrecords import Features, TFRecords
from vit_scaling.data.writing.tfrecord_source import values


@dataclasses.dataclass(frozen=True)
class ShardCopy:
    """One shard to copy; a process does it whole.

    Args:
        source: The file.
        path: Of the copy.
        removed: Numbers, in the file, of the records that stay out.
        features: Keys of the examples.
    """

    source: str
    path: str
    removed: tuple[int, ...]
    features: Features


def copies(
    train: TFRecords, removed: Sequence[int], output_dir: str
) -> list[ShardCopy]:
    """Return what is to be done to copy a set without some records.

    Raises:
        ValueError: Two shards have one name, so that one folder cannot hold them.
    """
    names = collections.Counter(os.path.basename(s.path) for s in train.shards)
    name, times = names.most_common(1)[0]
    if times > 1:
        raise ValueError(
            "The training set's shards must have different names, since one folder "
            f"gets them all; {name!r} comes {times} times. Clean its parts one by one."
        )
    starts = train.index().starts
    gone = np.sort(np.array(removed, np.int64))
    edges = np.searchsorted(gone, starts)
    return [
        ShardCopy(
            shard.path,
            os.path.join(output_dir, os.path.basename(shard.path)),
            tuple((gone[edges[i] : edges[i + 1]] - starts[i]).tolist()),
            train.features,
        )
        for i, shard in enumerate(train.shards)
    ]


def copy_shard(task: ShardCopy) -> dict[str, Any]:
    """Copy one shard; return its row of the manifest and its `class_counts`."""
    part = f"{task.path}.{os.getpid()}.part"
    gone, keyed = set(task.removed), True
    offsets, hashes = [0], []
    counts: collections.Counter[int] = collections.Counter()
    records = tf.data.TFRecordDataset(task.source).prefetch(64)
    with tf.io.TFRecordWriter(part) as writer:
        for number, data in enumerate(records.as_numpy_iterator()):
            if number in gone:
                continue
            writer.write(data)
            offsets.append(offsets[-1] + record_framing.FRAME_BYTES + len(data))
            key, labels = _key_and_labels(data, task.features)
            keyed = keyed and bool(key)
            hashes.append(subsets.key_hash(key))
            counts.update(labels)
    checksum = files.sync_and_hash(part)
    os.replace(part, task.path)
    record_index.store(task.path, "offsets", np.array(offsets, np.uint64))
    if keyed and task.features.key != task.features.image:
        kind = record_index.keys_kind(task.features.key, offsets[-1])
        record_index.store(task.path, kind, np.array(hashes, np.uint64))
    return {
        "file": os.path.basename(task.path),
        "records": len(hashes),
        "bytes": offsets[-1],
        "sha256": checksum,
        "removed": len(gone),
        "class_counts": dict(counts),
    }


def _key_and_labels(data: bytes, features: Features) -> tuple[bytes, list[int]]:
    """Return a record's key and labels; none of what it does not hold."""
    try:
        example = tf.train.Example.FromString(data)
    except Exception:  # Kept as it is; verify_tfrecords names such records.
        return b"", []
    found: list[Any] = []
    for key in (features.key, features.label):
        try:
            found.append(list(values(example, key)))
        except ValueError:
            found.append([])
    keys, labels = found
    whole = all(isinstance(label, int) for label in labels)
    numbers = [n + features.label_offset for n in labels] if whole else []
    return keys[0] if keys and isinstance(keys[0], bytes) else b"", numbers
