"""Copy a shard without some of its records, byte for byte, with its index files."""
# SPDX-License-Identifier: Apache-2.0

import collections
import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vit_scaling.data.examples import Features, feature_values
from vit_scaling.data.record_index import RecordIndex, Shard
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing.shard_files import open_shard


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
    removed = set(task.removed)
    counts: collections.Counter[int] = collections.Counter()
    with open_shard(task.path, task.features) as shard:
        index = RecordIndex([Shard(task.source)])
        for number, data in index.read_records():
            if number not in removed:
                key, labels = _key_and_labels(data, task.features)
                shard.write(data, key or None)
                counts.update(labels)
    return {
        **shard.manifest_row(),
        "removed": len(removed),
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
            found.append(list(feature_values(example, key)))
        except ValueError:
            found.append([])
    keys, labels = found
    whole = all(isinstance(label, int) for label in labels)
    numbers = [n + features.label_offset for n in labels] if whole else []
    return keys[0] if keys and isinstance(keys[0], bytes) else b"", numbers
