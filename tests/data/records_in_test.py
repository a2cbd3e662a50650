"""Records of finished sets as images to write again."""
# SPDX-License-Identifier: Apache-2.0

import pathlib
import pickle

import numpy as np
import pytest
import tensorflow as tf

from tests.data import sets
from vit_scaling.data import records_in, subsets
from vit_scaling.data.records_in import Records
from vit_scaling.data.tfrecords import Features, TFRecords


def test_entries_have_keys_labels_and_sizes(tmp_path):
    records = [sets.example(b"image", [2, 0], "a"), sets.example(b"other!", [], "b")]
    source = Records(sets.shards(tmp_path, [records[:1], records[1:]]))
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
    source = Records(TFRecords(pattern, Features(label_offset=-1)))
    assert source.entries()[0].labels == ("0", "2")


def test_a_set_without_keys_is_keyed_by_place(tmp_path):
    source = sets.numbered(tmp_path, [1, 2])
    keyless = TFRecords(source.pattern, Features(key="image/encoded"))
    assert [entry.key for entry in Records(keyless).entries()] == [
        "train-00000-of-00002.tfrecord:0",
        "train-00001-of-00002.tfrecord:0",
        "train-00001-of-00002.tfrecord:1",
    ]


def test_any_record_is_read_by_its_number(tmp_path):
    index = sets.numbered(tmp_path, [3, 0, 4]).index()
    for number in (6, 0, 3, 2):
        example = records_in.read_example(index, number)
        assert records_in.values(example, "image/class/label") == [number]
    seen = [number for number, _ in records_in.read_all(index)]
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
        list(records_in.read_all(source.index()))


def test_a_feature_that_is_not_there_is_told_with_those_that_are():
    example = tf.train.Example.FromString(sets.example(b"x", [0]))
    with pytest.raises(ValueError, match=r"no feature 'jpeg', but image/class/label, "):
        records_in.values(example, "jpeg")


def test_key_hashes_are_those_of_the_keys_and_kept(tmp_path):
    source = sets.numbered(tmp_path, [2, 3])
    expected = [subsets.key_hash(f"key/{n}".encode()) for n in range(5)]
    found = records_in.key_hashes(source.index(), source.features)
    np.testing.assert_array_equal(found, np.array(expected, np.uint64))
    kept = sorted(path.name for path in (tmp_path / "index").glob("*.keys.npy"))
    assert len(kept) == 2
    again = records_in.key_hashes(source.index(), source.features)
    np.testing.assert_array_equal(again, found)
