"""Copy a shard without some of its records, byte for byte, with its index files."""
# SPDX-License-Identifier: Apache-2.0

import collections
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.data.deduplication import removal_report
from vit_scaling.data.deduplication.search import Removal, Search
from vit_scaling.data.examples import Features, parse_example
from vit_scaling.data.record_index import RecordIndex, Shard
from vit_scaling.data.writing.shard_writer import open_shard


@dataclasses.dataclass(frozen=True)
class ShardCopy:
    """A shard to copy.

    Args:
        search: Its training set has the shard.
        shard: Number of the shard.
        path: Path of the copy.
        removals: The records to leave out, by shard; see `SearchResult`.
        exceptions: Names of records to keep nevertheless.
    """

    search: Search
    shard: int
    path: str
    removals: Mapping[int, Sequence[Removal]]
    exceptions: frozenset[tuple[str, int]] = frozenset()


@dataclasses.dataclass(frozen=True)
class CopiedShard:
    """What is reported of a copy.

    Args:
        row: Row of the manifest, with the number of removed records.
        class_counts: Number of images of each class.
        removals: The records that are left out.
        removal_list: Their lines of removed.csv.
        exceptions: Number of records that are kept as exceptions.
    """

    row: dict[str, Any]
    class_counts: Mapping[int, int]
    removals: Sequence[Removal]
    removal_list: str
    exceptions: int


def plan_copies(
    search: Search,
    removals: Mapping[int, Sequence[Removal]],
    output_dir: str,
    exceptions: frozenset[tuple[str, int]] = frozenset(),
) -> list[ShardCopy]:
    """Return the copies of all shards of the training set.

    Args:
        search: Its training set is copied.
        removals: The records to leave out, by shard.
        output_dir: Folder of the copies.
        exceptions: Names of records to keep nevertheless.

    Raises:
        ValueError: Two shards have the same name, so that one folder cannot hold them.
    """
    files = [os.path.basename(shard.path) for shard in search.train.shards]
    name, times = collections.Counter(files).most_common(1)[0]
    if times > 1:
        raise ValueError(
            "The training set's shards must have different names, since one folder "
            f"gets them all; {name!r} occurs {times} times. Clean its parts one by one."
        )
    return [
        ShardCopy(search, shard, os.path.join(output_dir, file), removals, exceptions)
        for shard, file in enumerate(files)
    ]


def copy_shard(task: ShardCopy) -> CopiedShard:
    """Copy one shard."""
    train = task.search.train
    locate = train.index().locate
    found = task.removals.get(task.shard, ())
    removals = [
        removal
        for removal in found
        if removal_report.name_record(*locate(removal.record)) not in task.exceptions
    ]
    removed = {locate(removal.record)[1] for removal in removals}
    counts: collections.Counter[int] = collections.Counter()
    records = RecordIndex([Shard(train.shards[task.shard].path)]).read_records()
    with open_shard(task.path, train.features) as shard:
        for number, data in records:
            if number not in removed:
                key, labels = _key_and_labels(data, train.features)
                shard.write(data, key)
                counts.update(labels)
    return CopiedShard(
        {**shard.manifest_row(), "removed": len(removed)},
        dict(counts),
        removals,
        removal_report.format_removals(task.search, removals),
        len(found) - len(removals),
    )


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
