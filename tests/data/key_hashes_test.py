"""Hashes of the records' keys."""
# SPDX-License-Identifier: Apache-2.0

import pathlib

import numpy as np
import pytest

from tests.data import sets
from vit_scaling.data import subsets
from vit_scaling.data.examples import Features
from vit_scaling.data.key_hashes import read_key_hashes
from vit_scaling.data.tfrecords import TFRecords


def test_key_hashes_are_computed_and_stored(tmp_path):
    source = sets.numbered(tmp_path, [2, 3])
    expected = [subsets.hash_key(f"key/{n}".encode()) for n in range(5)]
    result = read_key_hashes(source.index(), source.features)
    np.testing.assert_array_equal(result, np.array(expected, np.uint64))
    kept = sorted(path.name for path in (tmp_path / "index").glob("*.keys-*.npy"))
    assert len(kept) == 2
    again = read_key_hashes(source.index(), source.features)
    np.testing.assert_array_equal(again, result)


def test_hashes_of_another_key_or_another_file_are_not_read(tmp_path):
    def write_keys(first):
        records = [sets.example(b"", [0], k, other=k.encode() * 2) for k in first]
        return sets.shards(tmp_path, [records])

    def hashed(source, key):
        result = read_key_hashes(source.index(), Features(key=key))
        return [int(value) for value in result]

    source = write_keys(["a", "b"])
    assert hashed(source, "image/filename") == list(map(subsets.hash_key, (b"a", b"b")))
    assert hashed(source, "other") == list(map(subsets.hash_key, (b"aa", b"bb")))
    source = write_keys(["cc", "d"])  # As many records, and more bytes.
    assert hashed(source, "image/filename") == list(
        map(subsets.hash_key, (b"cc", b"d"))
    )


def test_hashes_of_earlier_versions_are_read_if_a_manifest_gives_the_size(
    tmp_path,
):
    source = sets.numbered(tmp_path, [2])
    name = pathlib.Path(source.shards[0].path).name
    (tmp_path / "index").mkdir()
    np.save(tmp_path / f"index/{name}.keys.npy", np.array([5, 6], np.uint64))

    def hashed():
        again = TFRecords(source.pattern)
        return read_key_hashes(again.index(), again.features).tolist()

    assert hashed() == [5, 6]
    (tmp_path / "train.manifest.json").unlink()
    assert hashed() == [subsets.hash_key(b"key/0"), subsets.hash_key(b"key/1")]


def test_keys_that_cannot_be_read_stop_or_are_blank_by_the_policy(tmp_path):
    source = sets.numbered(tmp_path, [3, 3])
    path = pathlib.Path(source.shards[1].path)
    data = bytearray(path.read_bytes())
    data[int(source.index().offsets(1)[1]) + 20] ^= 1
    path.write_bytes(bytes(data))
    where = r"00001-of-00002\.tfrecord, record 1: its bytes fail their checksum"
    with pytest.raises(ValueError, match=where):
        read_key_hashes(source.index(), source.features)
    for _ in range(2):  # What has blanks is not kept.
        index = source.index(on_bad_record="skip")
        result = read_key_hashes(index, source.features)
        expected = [subsets.hash_key(f"key/{n}".encode()) for n in range(6)]
        assert result.tolist() == [*expected[:4], 2**64 - 1, expected[5]]
    with pytest.raises(ValueError, match=r"`Features.key`='none' must name a feature"):
        read_key_hashes(index, Features(key="none"))
