"""Offsets, side files and blocks."""
# SPDX-License-Identifier: Apache-2.0

import os
import pathlib

import numpy as np
import pytest

from tests.data import sets
from vit_scaling.data import record_index
from vit_scaling.data.record_index import RecordIndex, Shard, block_table


def test_offsets_are_kept_beside_the_shards_and_found_anew_after_a_change(tmp_path):
    shards = [Shard(s.path) for s in sets.numbered(tmp_path, [4, 2]).shards]
    assert RecordIndex(shards).counts.tolist() == [4, 2]  # No manifest told it.
    kept = sorted((tmp_path / "index").iterdir())
    assert len(kept) == 2
    np.save(kept[0], np.array([0, 1], np.uint64))  # Not of this file: its end differs.
    fresh = RecordIndex(shards)
    assert fresh.counts.tolist() == [4, 2]


def test_a_set_that_cannot_be_written_to_is_cached_elsewhere(tmp_path, monkeypatch):
    (shard,) = sets.numbered(tmp_path / "set", [3]).shards
    (tmp_path / "set/index").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert RecordIndex([Shard(shard.path)]).num_records == 3
    assert len(list((tmp_path / "cache/vit_scaling/index").iterdir())) == 1


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_blocks_hold_each_record_once_and_name_it(tmp_path, parts):
    made = sets.numbered(tmp_path, [7, 0, 4, 9]).index()
    seen = []
    for part in range(parts):
        table = block_table(made, block_records=3, part=part, parts=parts)
        assert table.num_blocks == -(-table.num_records // 3)
        ends = np.append(table.run_first[1:], table.num_records)
        for run, (first, end) in enumerate(zip(table.run_first, ends, strict=True)):
            for place in range(first, end):
                path = table.paths[table.run_file[run]].decode()
                number = int(table.run_number[run] + place - first)
                shard = [s.path for s in made.shards].index(path)
                seen.append(int(made.starts[shard]) + number)
                assert made.locate(seen[-1]) == (path, number)
                assert table.offsets[place] == made.offsets(shard)[number]
    assert seen == list(range(20))


def test_a_selection_is_read_in_runs(tmp_path):
    made = sets.numbered(tmp_path, [10]).index()
    chosen = np.array([0, 1, 2, 5, 7, 8])
    table = block_table(made, block_records=4, selected=chosen)
    assert table.run_number.tolist() == [0, 5, 7]
    assert table.run_first.tolist() == [0, 3, 4]
    assert table.block_run.tolist() == [0, 2, 3]
    path = made.shards[0].path
    starts = np.append(made.offsets(0), os.path.getsize(path))
    assert table.size_bytes == sum(starts[n + 1] - starts[n] for n in chosen)


def test_ranges_of_a_file_count_from_their_start(tmp_path):
    path = sets.numbered(tmp_path, [10]).shards[0].path
    made = RecordIndex([Shard(path, skip=3, take=4), Shard(path, skip=8)])
    assert made.counts.tolist() == [4, 2]
    assert made.locate(1) == (path, 4)
    assert made.locate(5) == (path, 9)


@pytest.mark.parametrize("cut", ["between", "inside"])
def test_a_file_shorter_than_its_count_is_named_or_cut_by_the_policy(tmp_path, cut):
    """As TFDS knows its files: by their records, without a size."""
    path = pathlib.Path(sets.numbered(tmp_path, [5]).shards[0].path)
    ends = RecordIndex([Shard(str(path))]).edges(0)
    path.write_bytes(path.read_bytes()[: ends[3] + 5 * (cut == "inside")])
    shards = [Shard(str(path), skip=1, records=5)]
    with pytest.raises(ValueError, match=r"00000-of-00001\.tfrecord, record 3: "):
        block_table(RecordIndex(shards), block_records=2)
    table = block_table(RecordIndex(shards, on_bad_record="skip"), block_records=2)
    assert table.offsets.tolist() == ends[1:3].tolist()


def test_a_table_of_blocks_reads_each_offsets_file_once(tmp_path, monkeypatch):
    made = sets.numbered(tmp_path, [4, 2]).index()
    block_table(made, block_records=2)  # Now the files are there.
    loaded = []
    load = record_index._load
    monkeypatch.setattr(record_index, "_load", lambda p: loaded.append(p) or load(p))
    block_table(made, block_records=2)
    assert len(loaded) == len(set(loaded)) == 2


def test_missing_and_changed_shards_are_named(tmp_path):
    source = sets.numbered(tmp_path, [3])
    path = source.shards[0].path
    size = os.path.getsize(path)
    with pytest.raises(ValueError, match=f"has {size} bytes, but its manifest says 1"):
        RecordIndex([Shard(path, records=3, size_bytes=1)])
    pathlib.Path(path).unlink()
    with pytest.raises(FileNotFoundError, match="does not exist"):
        RecordIndex([Shard(path)])
    assert record_index.store(path, "offsets", np.zeros(1)) is not None
