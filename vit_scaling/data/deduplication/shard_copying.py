"""Copy a shard without some of its records, byte for byte, with its index files."""
# SPDX-License-Identifier: Apache-2.0

import collections
import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_scaling.data.examples import Features, parse_example
from vit_scaling.data.record_index import RecordIndex, Shard
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing.shard_writer import open_shard


@dataclasses.dataclass(frozen=True)
class ShardCopy:
    """A shard to copy.

    Args:
        source: Path of the shard.
        path: Path of the copy.
        removed: Numbers, in the shard, of the records to leave out.
        features: Keys of the examples.
    """

    source: str
    path: str
    removed: tuple[int, ...]
    features: Features


def plan_copies(
    train: TFRecords, removed: Sequence[int], output_dir: str
) -> list[ShardCopy]:
    """Return the copies of all shards of a set that leave some records out.

    Args:
        train: The set.
        removed: Numbers of the records to leave out.
        output_dir: Folder of the copies.

    Raises:
        ValueError: Two shards have the same name, so that one folder cannot hold them.
    """
    names = collections.Counter(os.path.basename(s.path) for s in train.shards)
    name, times = names.most_common(1)[0]
    if times > 1:
        raise ValueError(
            "The training set's shards must have different names, since one folder "
            f"gets them all; {name!r} occurs {times} times. Clean its parts one by one."
        )
    starts = train.index().starts
    ordered = np.sort(np.array(removed, np.int64))
    edges = np.searchsorted(ordered, starts)
    return [
        ShardCopy(
            shard.path,
            os.path.join(output_dir, os.path.basename(shard.path)),
            tuple((ordered[edges[i] : edges[i + 1]] - starts[i]).tolist()),
            train.features,
        )
        for i, shard in enumerate(train.shards)
    ]


def copy_shard(task: ShardCopy) -> dict[str, Any]:
    """Copy one shard; return its row of the manifest and its `class_counts`."""
    removed = set(task.removed)
    counts: collections.Counter[int] = collections.Counter()
    with open_shard(task.path, task.features) as shard:
        for number, data in RecordIndex([Shard(task.source)]).read_records():
            if number not in removed:
                key, labels = _key_and_labels(data, task.features)
                shard.write(data, key)
                counts.update(labels)
    return {
        **shard.manifest_row(),
        "removed": len(removed),
        "class_counts": dict(counts),
    }


def _key_and_labels(data: bytes, features: Features) -> tuple[bytes | None, list[int]]:
    """Return a record's key, or None, and its labels, which may be missing too."""
    try:
        values = parse_example(data).features.feature
    except ValueError:  # Copied as it is; verify_tfrecords names such records.
        return None, []
    keys = values[features.key].bytes_list.value
    labels = values[features.label].int64_list.value
    key = (keys[0] or None) if keys else None
    return key, [label + features.label_offset for label in labels]
