"""The files of a training set without near-duplicates."""
# SPDX-License-Identifier: Apache-2.0

import csv
import json
import pickle

import pytest

from tests.data import sets
from tests.data.deduplication.example_sets import photos, planted
from vit_scaling.data.deduplication import cleaning
from vit_scaling.data.deduplication.search import Removal, Search
from vit_scaling.data.deduplication.shard_copying import CopiedShard
from vit_scaling.data.examples import Features
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing.verification import verify


def clean(train, against, output_dir, *, include_internal=False, report=True):
    search = Search(train, against, include_internal=include_internal)
    return cleaning.clean(search, output_dir=str(output_dir), report=report)


def test_the_cleaned_set_has_a_valid_manifest(tmp_path):
    train, test = planted(tmp_path)
    out = tmp_path / "clean"
    result = clean(train, [test], out, include_internal=True)
    assert (result["records"], result["removed"], result["kept"]) == (16, 3, 13)
    manifest = json.loads((out / "train.manifest.json").read_text())
    assert manifest["class_counts"] == {"ape": 5, "bee": 4, "cow": 4}
    cleaned = TFRecords(str(out / "train.manifest.json"))
    assert cleaned.class_names == ("ape", "bee", "cow")
    assert cleaned.index().num_records == 13
    faults = verify(str(out / "train.manifest.json"))["faults"]
    assert len(faults) == 1  # The record that is not an image is kept.
    assert "no known image format" in faults[0]


def test_the_manifest_is_named_after_the_whole_split(tmp_path):
    records = [sets.example(data, [0], f"{n}") for n, (_, data) in enumerate(photos(2))]
    sets.shards(tmp_path / "set", [records])
    (tmp_path / "set/train-00000-of-00001.tfrecord").rename(
        tmp_path / "set/train-extra-00000-of-00001.tfrecord"
    )
    train = TFRecords(f"{tmp_path}/set/train-extra-*")
    out = tmp_path / "clean"
    clean(train, [], out, include_internal=True)
    assert verify(str(out / "train-extra.manifest.json"))["fault_count"] == 0


def test_the_list_names_both_images_of_a_pair(tmp_path):
    train, test = planted(tmp_path)
    out = tmp_path / "clean"
    clean(train, [test], out, include_internal=True, report=False)
    with open(out / "removed.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    keys = [(row["key"], row["like_key"]) for row in rows]
    assert keys == [
        ("train/12", "test/0"),
        ("train/13", "test/1"),
        ("train/14", "train/5"),
    ]
    assert [int(row["record"]) + 7 for row in rows] == [12, 13, 14]
    assert rows[2]["like_file"].endswith("train-00000-of-00002.tfrecord")
    assert not (out / "report.html").exists()


def test_wrong_arguments_are_rejected_before_shards_are_written(tmp_path):
    train, test = planted(tmp_path)
    with pytest.raises(ValueError, match="must not be the training set's own folder"):
        clean(train, [test], tmp_path / "train")
    with pytest.raises(ValueError, match="must not be the evaluation set's own folder"):
        clean(train, [test], tmp_path / "test")
    both = TFRecords([train.pattern, sets.numbered(tmp_path / "z", [1]).pattern])
    with pytest.raises(ValueError, match="must not be the training set's own folder"):
        clean(both, [test], tmp_path / "z")
    with pytest.raises(ValueError, match="`against` must name evaluation sets unless"):
        clean(train, [], tmp_path / "clean")
    junk = sets.shards(tmp_path / "junk", [[sets.example(b"junk", [0])]])
    with pytest.raises(ValueError, match="must hold images that decode"):
        clean(train, [junk], tmp_path / "clean")
    # One set among several that cannot be read would let its copies stay.
    with pytest.raises(ValueError, match=r"decode; received '.*junk.*of its 1 records"):
        clean(train, [test, junk], tmp_path / "clean")
    assert not list((tmp_path / "clean").glob("*.tfrecord"))


def test_wrong_feature_keys_are_rejected_and_right_ones_read(tmp_path):
    images = [data for _, data in photos(2)]
    record = sets.example(b"", [0], jpeg=images[0])
    plain = sets.shards(tmp_path / "train", [[record]])
    test = sets.shards(tmp_path / "test", [[sets.example(images[1], [0])] * 2])
    out = str(tmp_path / "clean")
    with pytest.raises(
        ValueError, match=r"`train` must.*first: .*, jpeg\. .*--image_k"
    ):
        clean(plain, [test], out)
    train = TFRecords(plain.pattern, Features(image="jpeg"))
    with pytest.raises(ValueError, match="`against` must hold images"):
        clean(test, [plain], out)
    result = clean(train, [test], out, report=False)
    assert (result["unreadable"], result["unreadable_against"]) == (0, 0)


def test_what_is_kept_of_copies_does_not_grow_with_the_removals():
    def size(removed):
        copies = cleaning._Copies()
        for number in range(20):
            removals = [Removal(n, 0, n, 3, 1 - n / 1e6) for n in range(removed)]
            row = {"file": f"{number}", "records": 9, "removed": removed}
            copies.add(CopiedShard(row, {0: 9}, removals, "line\n" * removed, 1))
        assert copies.removed_by_set == {0: 20 * removed}
        assert len(copies.least_alike) == 200
        return len(pickle.dumps(vars(copies)))

    assert size(10_000) < 1.1 * size(10)
