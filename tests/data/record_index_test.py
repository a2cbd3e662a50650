"""Offsets, side files and blocks."""
# SPDX-License-Identifier: Apache-2.0

import os
import pathlib

import numpy as np
import pytest

from tests.data import sets
from vit_scaling.data.block_table import make_block_table
from vit_scaling.data.examples import feature_values, read_example
from vit_scaling.data.record_index import RecordIndex, Shard


def test_offsets_are_stored_next_to_the_shards_and_computed_again_after_a_change(
    tmp_path,
):
    shards = [Shard(s.path) for s in sets.numbered(tmp_path, [4, 2]).shards]
    assert RecordIndex(shards).counts.tolist() == [4, 2]  # Without a manifest.
    kept = sorted((tmp_path / "index").iterdir())
    assert len(kept) == 2
    np.save(kept[0], np.array([0, 1], np.uint64))  # Not of this file: its end differs.
    fresh = RecordIndex(shards)
    assert fresh.counts.tolist() == [4, 2]


def test_offsets_of_a_read_only_set_are_stored_in_the_cache(tmp_path, monkeypatch):
    (shard,) = sets.numbered(tmp_path / "set", [3]).shards
    (tmp_path / "set/index").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert RecordIndex([Shard(shard.path)]).num_records == 3
    assert len(list((tmp_path / "cache/vit_scaling/index").iterdir())) == 1


def test_ranges_of_a_file_count_from_their_start(tmp_path):
    path = sets.numbered(tmp_path, [10]).shards[0].path
    index = RecordIndex([Shard(path, skip=3, take=4), Shard(path, skip=8)])
    assert index.counts.tolist() == [4, 2]
    assert index.locate(1) == (path, 4)
    assert index.locate(5) == (path, 9)


@pytest.mark.parametrize("cut", ["between", "inside"])
def test_a_file_shorter_than_its_count_raises_or_is_cut(tmp_path, cut):
    """As TFDS knows its files: by their records, without a size."""
    path = pathlib.Path(sets.numbered(tmp_path, [5]).shards[0].path)
    ends = RecordIndex([Shard(str(path))]).boundaries(0)
    path.write_bytes(path.read_bytes()[: ends[3] + 5 * (cut == "inside")])
    shards = [Shard(str(path), skip=1, records=5)]
    with pytest.raises(ValueError, match=r"00000-of-00001\.tfrecord, record 3: "):
        make_block_table(RecordIndex(shards), block_records=2)
    table = make_block_table(RecordIndex(shards, on_bad_record="skip"), block_records=2)
    assert table.offsets.tolist() == ends[1:3].tolist()


def test_missing_and_changed_shards_are_named(tmp_path):
    source = sets.numbered(tmp_path, [3])
    path = source.shards[0].path
    size = os.path.getsize(path)
    with pytest.raises(ValueError, match=f"has {size} bytes, but its manifest says 1"):
        RecordIndex([Shard(path, records=3, size_bytes=1)])
    pathlib.Path(path).unlink()
    with pytest.raises(FileNotFoundError, match="does not exist"):
        RecordIndex([Shard(path)])


def test_any_record_is_read_by_its_number(tmp_path):
    index = sets.numbered(tmp_path, [3, 0, 4]).index()
    for number in (6, 0, 3, 2):
        example = read_example(index, number)
        assert feature_values(example, "image/class/label") == [number]
    seen = [number for number, _ in index.read_records()]
    assert seen == list(range(7))


def test_a_damaged_record_is_named(tmp_path):
    source = sets.numbered(tmp_path, [3, 3])
    path = pathlib.Path(source.shards[1].path)
    data = bytearray(path.read_bytes())
    data[int(source.index().offsets(1)[1]) + 20] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(
        ValueError, match=r"00001-of-00002\.tfrecord, record 1: its byt"
    ):
        list(source.index().read_records())
