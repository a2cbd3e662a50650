"""Records of existing sets as images to write into new shards."""
# SPDX-License-Identifier: Apache-2.0

import pickle

import pytest

from tests.data import sets
from vit_scaling.data.examples import Features
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing.record_images import RecordImages


def test_entries_have_keys_labels_and_sizes(tmp_path):
    records = [sets.example(b"image", [2, 0], "a"), sets.example(b"other!", [], "b")]
    source = RecordImages(sets.shards(tmp_path, [records[:1], records[1:]]))
    first, second = source.entries()
    assert (first.key, first.labels) == ("a", ("2", "0"))
    assert (second.key, second.labels) == ("b", ())
    # Shards of bounded size need to know: the whole record stands for the image.
    assert [e.size_bytes for e in (first, second)] == [len(r) for r in records]
    assert source.class_names() == ("0", "1", "2")
    assert source.read(second) == b"other!"
    sent = pickle.loads(pickle.dumps(source))  # A worker reads without a list.
    assert sent.read(first) == b"image"


def test_labels_as_stored_are_moved_by_the_offset(tmp_path):
    pattern = sets.shards(tmp_path, [[sets.example(b"x", [1, 3])]]).pattern
    source = RecordImages(TFRecords(pattern, Features(label_offset=-1)))
    assert source.entries()[0].labels == ("0", "2")


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_without_a_class_is_named(tmp_path, label):
    records = [sets.example(b"x", [n], f"{n}") for n in (0, 1, label)]
    source = sets.shards(tmp_path, [records[:1], records[1:]])
    (tmp_path / "classes.txt").write_text("ape\nbee\n")
    where = (
        rf"00001-of-00002\.tfrecord, record 1: labels must be .*received \[{label}\]"
    )
    with pytest.raises(ValueError, match=where):
        RecordImages(source).entries()


def test_a_negative_label_is_named_where_classes_have_no_names(tmp_path):
    source = sets.shards(tmp_path, [[sets.example(b"x", [n]) for n in (1, -1)]])
    with pytest.raises(ValueError, match=r"record 1: labels must be in 0…1 .*\[-1\]"):
        RecordImages(source).entries()


def test_records_that_cannot_be_written_again_are_named(tmp_path):
    for number, junk in enumerate([b"\x07garbage", without(b"image/class/label")]):
        source = sets.shards(tmp_path / f"{number}", [[sets.example(b"", [0]), junk]])
        with pytest.raises(ValueError, match=r"00000-of-00001\.tfrecord, record 1: "):
            RecordImages(source).entries()


def without(key):
    """An example without one of its features."""
    return sets.example(b"", [0]).replace(key, b"?" * len(key))


def test_a_set_without_keys_is_keyed_by_place(tmp_path):
    source = sets.numbered(tmp_path, [1, 2])
    keyless = TFRecords(source.pattern, Features(key="image/encoded"))
    assert [entry.key for entry in RecordImages(keyless).entries()] == [
        "train-00000-of-00002.tfrecord:0",
        "train-00001-of-00002.tfrecord:0",
        "train-00001-of-00002.tfrecord:1",
    ]
