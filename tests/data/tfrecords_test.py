"""Patterns and manifests to shards."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.data import sets
from vit_scaling.data.tfrecords import (
    TFRecords,
    find_missing_shards,
    read_class_names,
    shard_name,
)
from vit_scaling.data.writing.verification import verify


def names(source):
    return [shard.path.rsplit("/", 1)[-1] for shard in source.shards]


def test_patterns_are_sorted_and_each_file_comes_once(tmp_path):
    sets.numbered(tmp_path, [1, 1, 1])
    all_, first = f"{tmp_path}/train-*", f"{tmp_path}/train-00000*"
    expected = [f"train-{n:05d}-of-00003.tfrecord" for n in range(3)]
    for pattern in (all_, f"{first}, {all_}", [all_, first]):
        assert names(TFRecords(pattern)) == expected


def test_a_set_with_missing_files_raises(tmp_path, caplog):
    sets.shards(tmp_path, [[sets.example(b"", [0])]] * 4)
    for number in (1, 3):
        (tmp_path / f"train-{number:05d}-of-00004.tfrecord").unlink()
    source = TFRecords(f"{tmp_path}/train-*")
    message = r"train-00001-of-00004\.tfrecord is missing: .* fits 2 files.* 2 more"
    with pytest.raises(ValueError, match=message):
        source.index()
    assert source.index(on_bad_record="skip").num_records == 2
    assert "train-00001-of-00004.tfrecord is missing" in caplog.text
    # Who asks for the files that are there gets them.
    assert TFRecords(f"{tmp_path}/train-0000[02]*").index().num_records == 2
    assert verify(f"{tmp_path}/train-*")["fault_count"] >= 2


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"manifest .*none\.json does not exist"
    ):
        TFRecords(f"{tmp_path}/none.json").index()


def test_files_being_written_are_not_shards(tmp_path):
    sets.numbered(tmp_path, [1])
    (tmp_path / "train-00000-of-00001.tfrecord.1234.part").write_bytes(b"half")
    (tmp_path / ".partial-12ab-train-00000-of-00001.tfrecord").write_bytes(b"half")
    (tmp_path / ".partial-12ab-train.manifest.json").write_bytes(b"{")
    for pattern in ("train-*", "*tfrecord*"):
        result = names(TFRecords(f"{tmp_path}/{pattern}"))
        assert result == ["train-00000-of-00001.tfrecord"]


def test_a_glob_leaves_out_manifests_and_other_text_files(tmp_path):
    sets.numbered(tmp_path, [1])
    for name in ("classes.txt", "removed.csv", "train-report.html", "features.json"):
        (tmp_path / name).write_text("text")
    (tmp_path / "index").mkdir()
    for pattern in ("train*", "*"):
        source = TFRecords(f"{tmp_path}/{pattern}")
        assert names(source) == ["train-00000-of-00001.tfrecord"]
        assert source.index().num_records == 1


def test_a_shard_that_differs_from_its_manifest_raises(tmp_path):
    sets.numbered(tmp_path, [2, 3])
    shard = tmp_path / "train-00001-of-00002.tfrecord"
    shard.write_bytes(shard.read_bytes() + b"more")
    with pytest.raises(ValueError, match=r"00001.* bytes, but its manifest says"):
        TFRecords(f"{tmp_path}/train-*").index()
    shard.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"00001-of-00002\.tfrecord does not exist"
    ):
        TFRecords(f"{tmp_path}/train.manifest.json").index()


def test_class_names_are_read_from_the_first_shards_folder(tmp_path):
    source = sets.numbered(tmp_path, [1])
    assert source.class_names is None
    (tmp_path / "classes.txt").write_text("one two\n\nthree\n")
    assert TFRecords(source.pattern).class_names == ("one two", "three")
    assert read_class_names(str(tmp_path / "classes.txt")) == ("one two", "three")


def test_an_index_is_made_once_for_each_policy(tmp_path):
    source = sets.numbered(tmp_path, [4])
    assert source.index() is source.index()
    assert source.index(on_bad_record="skip") is not source.index()


def test_missing_shards_are_those_of_the_counts_that_match_a_pattern():
    paths = [f"/set/{shard_name('train', n, 4)}" for n in (0, 2)]
    paths.append(f"/set/{shard_name('test', 0, 1)}")
    missing = [f"/set/{shard_name('train', n, 4)}" for n in (1, 3)]
    assert list(find_missing_shards(paths, ["/set/*"])) == missing
    assert list(find_missing_shards(paths, ["/set/train-0000[01]*"])) == missing[:1]
