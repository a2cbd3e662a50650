"""Nested subsets by hash."""
# SPDX-License-Identifier: Apache-2.0

import hashlib
import itertools
import pathlib

import numpy as np
import pytest

from tests.data import sets
from vit_scaling.data.examples import Features
from vit_scaling.data.subsets import (
    hash_key,
    read_key_hashes,
    select_complement,
    select_subset,
)
from vit_scaling.data.tfrecords import TFRecords

HASHES = np.array([hash_key(f"key {n}".encode()) for n in range(20_000)], np.uint64)


def test_hashes_are_blake2b_little_endian():
    digest = hashlib.blake2b(b"a/b.jpg", digest_size=8).digest()
    assert hash_key(b"a/b.jpg") == sum(byte << 8 * n for n, byte in enumerate(digest))


def test_larger_subsets_contain_smaller_ones():
    by_fraction = [
        set(select_subset(HASHES, fraction=f)) for f in (0.01, 0.1, 0.5, 0.999)
    ]
    by_number = [set(select_subset(HASHES, num_images=n)) for n in (1, 10, 200, 9000)]
    for selections in (by_fraction, by_number):
        assert all(a < b for a, b in itertools.pairwise(selections))
    assert [len(one) for one in by_number] == [1, 10, 200, 9000]
    # A share's size is binomial: within four standard deviations.
    for share, one in zip((0.01, 0.1, 0.5), by_fraction, strict=False):
        assert abs(len(one) - share * 20_000) < 4 * (share * (1 - share) * 2e4) ** 0.5


def test_classes_keep_their_fractions_within_sampling_noise():
    classes = np.arange(20_000) % 10
    chosen = np.bincount(classes[select_subset(HASHES, fraction=0.1)], minlength=10)
    assert np.all(np.abs(chosen - 200) < 4 * 13.4)


def test_everything_can_be_selected():
    assert len(select_subset(HASHES, fraction=1.0)) == 20_000
    assert len(select_subset(HASHES, num_images=10**9)) == 20_000


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"fraction": 0.0},
        {"fraction": 1.1},
        {"num_images": 0},
        {"fraction": 0.5, "num_images": 3},
    ],
)
def test_wrong_sizes_raise(wrong):
    with pytest.raises(ValueError, match=r"fraction|num_images"):
        select_subset(HASHES, **wrong)


def test_the_complement_is_the_rest():
    kept, left = (
        select_subset(HASHES, fraction=0.98),
        select_complement(HASHES, fraction=0.98),
    )
    assert sorted([*kept, *left]) == list(range(20_000))
    assert abs(len(left) - 400) < 4 * (0.02 * 0.98 * 2e4) ** 0.5


def test_a_fraction_that_leaves_nothing_raises():
    with pytest.raises(ValueError, match="leaves out none of 20000 images"):
        select_complement(HASHES, fraction=1.0)


def test_key_hashes_are_computed_and_stored(tmp_path):
    source = sets.numbered(tmp_path, [2, 3])
    expected = [hash_key(f"key/{n}".encode()) for n in range(5)]
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
    assert hashed(source, "image/filename") == list(map(hash_key, (b"a", b"b")))
    assert hashed(source, "other") == list(map(hash_key, (b"aa", b"bb")))
    source = write_keys(["cc", "d"])  # As many records, and more bytes.
    assert hashed(source, "image/filename") == list(map(hash_key, (b"cc", b"d")))


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
    assert hashed() == [hash_key(b"key/0"), hash_key(b"key/1")]


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
        expected = [hash_key(f"key/{n}".encode()) for n in range(6)]
        assert result.tolist() == [*expected[:4], 2**64 - 1, expected[5]]
    with pytest.raises(ValueError, match=r"`Features.key`='none' must name a feature"):
        read_key_hashes(index, Features(key="none"))
