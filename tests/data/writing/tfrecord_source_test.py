"""Records of finished sets as images to write again."""
# SPDX-License-Identifier: Apache-2.0

import pathlib
import pickle

import numpy as np
import pytest
import tensorflow as tf

from tests.data import sets
from vit_scaling.data import subsets
from vit_scaling.data.tfrecords import Features, TFRecords
from vit_scaling.data.writing import tfrecord_source
from vit_scaling.data.writing.tfrecord_source import Records


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


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_that_is_no_class_is_named_and_no_other_class(tmp_path, label):
    records = [sets.example(b"x", [n], f"{n}") for n in (0, 1, label)]
    source = sets.shards(tmp_path, [records[:1], records[1:]])
    (tmp_path / "classes.txt").write_text("ape\nbee\n")
    where = (
        rf"00001-of-00002\.tfrecord, record 1: labels must be .*received \[{label}\]"
    )
    with pytest.raises(ValueError, match=where):
        Records(source).entries()


def test_a_negative_label_is_named_where_classes_have_no_names(tmp_path):
    source = sets.shards(tmp_path, [[sets.example(b"x", [n]) for n in (1, -1)]])
    with pytest.raises(ValueError, match=r"record 1: labels must be in 0…1 .*\[-1\]"):
        Records(source).entries()


def test_records_that_cannot_be_written_anew_are_named(tmp_path):
    for number, junk in enumerate([b"\x07garbage", without(b"image/class/label")]):
        source = sets.shards(tmp_path / f"{number}", [[sets.example(b"", [0]), junk]])
        with pytest.raises(ValueError, match=r"00000-of-00001\.tfrecord, record 1: "):
            Records(source).entries()


def without(key):
    """An example without one of its features."""
    return sets.example(b"", [0]).replace(key, b"?" * len(key))


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
        example = tfrecord_source.read_example(index, number)
        assert tfrecord_source.values(example, "image/class/label") == [number]
    seen = [number for number, _ in tfrecord_source.read_all(index)]
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
        list(tfrecord_source.read_all(source.index()))


def test_a_feature_that_is_not_there_is_told_with_those_that_are():
    example = tf.train.Example.FromString(sets.example(b"x", [0]))
    with pytest.raises(ValueError, match=r"no feature 'jpeg', but image/class/label, "):
        tfrecord_source.values(example, "jpeg")


def test_key_hashes_are_those_of_the_keys_and_kept(tmp_path):
    source = sets.numbered(tmp_path, [2, 3])
    expected = [subsets.key_hash(f"key/{n}".encode()) for n in range(5)]
    found = tfrecord_source.key_hashes(source.index(), source.features)
    np.testing.assert_array_equal(found, np.array(expected, np.uint64))
    kept = sorted(path.name for path in (tmp_path / "index").glob("*.keys-*.npy"))
    assert len(kept) == 2
    again = tfrecord_source.key_hashes(source.index(), source.features)
    np.testing.assert_array_equal(again, found)


def test_hashes_of_another_key_or_another_file_are_not_taken(tmp_path):
    def made(first):
        records = [sets.example(b"", [0], k, other=k.encode() * 2) for k in first]
        return sets.shards(tmp_path, [records])

    def hashed(source, key):
        found = tfrecord_source.key_hashes(source.index(), Features(key=key))
        return [int(value) for value in found]

    source = made(["a", "b"])
    assert hashed(source, "image/filename") == list(map(subsets.key_hash, (b"a", b"b")))
    assert hashed(source, "other") == list(map(subsets.key_hash, (b"aa", b"bb")))
    source = made(["cc", "d"])  # As many records, and more bytes.
    assert hashed(source, "image/filename") == list(
        map(subsets.key_hash, (b"cc", b"d"))
    )


def test_hashes_under_the_writers_earlier_name_are_taken_if_a_manifest_vouches(
    tmp_path,
):
    source = sets.numbered(tmp_path, [2])
    name = pathlib.Path(source.shards[0].path).name
    (tmp_path / "index").mkdir()
    np.save(tmp_path / f"index/{name}.keys.npy", np.array([5, 6], np.uint64))

    def hashed():
        again = TFRecords(source.pattern)
        return tfrecord_source.key_hashes(again.index(), again.features).tolist()

    assert hashed() == [5, 6]
    (tmp_path / "train.manifest.json").unlink()
    assert hashed() == [subsets.key_hash(b"key/0"), subsets.key_hash(b"key/1")]


def test_keys_that_cannot_be_read_stop_or_are_blank_by_the_policy(tmp_path):
    source = sets.numbered(tmp_path, [3, 3])
    path = pathlib.Path(source.shards[1].path)
    data = bytearray(path.read_bytes())
    data[int(source.index().offsets(1)[1]) + 20] ^= 1
    path.write_bytes(bytes(data))
    where = r"00001-of-00002\.tfrecord, record 1: its bytes fail their checksum"
    with pytest.raises(ValueError, match=where):
        tfrecord_source.key_hashes(source.index(), source.features)
    for _ in range(2):  # What has blanks is not kept.
        index = source.index(on_bad_record="skip")
        found = tfrecord_source.key_hashes(index, source.features)
        expected = [subsets.key_hash(f"key/{n}".encode()) for n in range(6)]
        assert found.tolist() == [*expected[:4], 2**64 - 1, expected[5]]
    with pytest.raises(ValueError, match=r"`Features.key`='none' must name a feature"):
        tfrecord_source.key_hashes(index, Features(key="none"))
