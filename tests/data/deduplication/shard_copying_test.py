"""Copies of shards without some records."""
# SPDX-License-Identifier: Apache-2.0

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tests.data import sets
from vit_scaling.data import subsets
from vit_scaling.data.deduplication.search import TRAINING_SET, Removal, Search
from vit_scaling.data.deduplication.shard_copying import copy_shard, plan_copies
from vit_scaling.data.record_index import RecordIndex, Shard
from vit_scaling.data.sidecar_files import key_hashes_kind
from vit_scaling.data.tfrecords import TFRecords


def removal(record):
    return Removal(record, TRAINING_SET, 0, 1, 0.99)


def searched(source):
    return Search(source, [], include_internal=True)


def bytes_of(path):
    return list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())


def test_copied_records_have_the_same_bytes_and_order(tmp_path):
    source = sets.numbered(tmp_path / "from", [4, 0, 6])
    (tmp_path / "to").mkdir()
    removals = {0: [removal(0), removal(3)], 2: [removal(8)]}
    tasks = plan_copies(searched(source), removals, str(tmp_path / "to"))
    copies = [copy_shard(task) for task in tasks]
    assert [[r.record for r in copy.removals] for copy in copies] == [[0, 3], [], [8]]
    rows = [copy.row for copy in copies]
    assert [(row["records"], row["removed"]) for row in rows] == [
        (2, 2),
        (0, 0),
        (5, 1),
    ]
    for shard, task, left in zip(
        source.shards, tasks, ([1, 2], [], [0, 1, 2, 3, 5]), strict=True
    ):
        before = bytes_of(shard.path)
        assert bytes_of(task.path) == [before[n] for n in left]
    assert copies[2].class_counts == {4: 1, 5: 1, 6: 1, 7: 1, 9: 1}
    assert rows[2]["bytes"] == pathlib.Path(tasks[2].path).stat().st_size


def test_a_copy_has_its_own_index_files(tmp_path):
    source = sets.numbered(tmp_path / "from", [5])
    (tmp_path / "to").mkdir()
    (task,) = plan_copies(searched(source), {0: [removal(1)]}, str(tmp_path / "to"))
    copy_shard(task)
    folder = tmp_path / "to/index"
    name = pathlib.Path(task.path).name
    offsets = np.load(folder / f"{name}.offsets.npy")
    assert offsets[-1] == pathlib.Path(task.path).stat().st_size
    keys = np.load(
        folder / f"{name}.{key_hashes_kind('image/filename', int(offsets[-1]))}.npy"
    )
    expected = [subsets.hash_key(f"key/{n}".encode()) for n in (0, 2, 3, 4)]
    assert keys.tolist() == expected
    assert RecordIndex([Shard(task.path)]).num_records == 4


def test_records_that_are_not_examples_are_copied_too(tmp_path):
    source = sets.shards(tmp_path / "from", [[b"\x07garbage", sets.example(b"x", [3])]])
    (tmp_path / "to").mkdir()
    (task,) = plan_copies(searched(source), {}, str(tmp_path / "to"))
    copy = copy_shard(task)
    assert copy.row["records"] == 2
    assert copy.class_counts == {3: 1}


def test_shards_with_the_same_name_are_rejected(tmp_path):
    for name in ("a", "b"):
        sets.numbered(tmp_path / name, [1])
    both = TFRecords(f"{tmp_path}/a/train-*,{tmp_path}/b/train-*")
    with pytest.raises(ValueError, match=r"must have different names.*occurs 2 times"):
        plan_copies(searched(both), {}, str(tmp_path / "to"))
