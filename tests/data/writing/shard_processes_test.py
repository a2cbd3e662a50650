"""Processes write shards and count images; the first failure ends the writing."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import pytest

from tests.data import sets
from vit_scaling.data.writing import shard_processes
from vit_scaling.data.writing.image_files import Folder
from vit_scaling.data.writing.shard_writer import Settings, ShardTask


@pytest.fixture
def tasks(tmp_path):
    source = Folder(str(sets.folder(tmp_path / "images", {"a": 12})))
    (tmp_path / "out").mkdir()
    return [
        ShardTask(
            source,
            tuple(source.entries()[4 * number : 4 * number + 4]),
            str(tmp_path / f"out/{number}.tfrecord"),
            ("a",),
            Settings(),
            "plan",
        )
        for number in range(3)
    ]


def test_every_image_is_counted(tasks):
    counts = []  # Of several processes: see split_writer_test.
    shard_processes.write_shards(tasks, 1, counts.append)
    assert counts == list(range(1, 13))
    assert [task.is_finished() for task in tasks] == [True, True, True]


def test_a_failure_ends_the_writing(tasks, tmp_path):
    broken = dataclasses.replace(tasks[0], path="/proc/none/0.tfrecord")
    with pytest.raises(OSError, match="none"):
        shard_processes.write_shards([broken, *tasks[1:]], 1, lambda _: None)
    assert not list((tmp_path / "out").glob("*"))


def test_small_sets_are_written_by_one_process_and_large_ones_by_all(
    tasks, monkeypatch
):
    monkeypatch.setattr(shard_processes.os, "cpu_count", lambda: 7)
    assert shard_processes._default_workers(tasks) == 1
    for name, small in (("_SMALL_BYTES", 1), ("_SMALL_IMAGES", 12)):
        with monkeypatch.context() as changed:
            changed.setattr(shard_processes, name, small)
            assert shard_processes._default_workers(tasks) == 7
