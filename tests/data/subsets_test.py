"""Nested subsets by hash."""
# SPDX-License-Identifier: Apache-2.0

import hashlib
import itertools
import pathlib
import tracemalloc

import numpy as np
import pytest

from tests.data import sets
from vit_scaling.data import subsets
from vit_scaling.data.examples import Features
from vit_scaling.data.subsets import (
    KeyHashes,
    hash_key,
    select_complement,
    select_subset,
)
from vit_scaling.data.tfrecords import TFRecords

HASHES = np.array([hash_key(f"key {n}".encode()) for n in range(20_000)], np.uint64)
KEYS = Features()


def select_all_at_once(hashes, fraction=None, num_images=None):
    """The rule of all versions, with the hashes of the complete set in memory."""
    if fraction == 1:
        return np.arange(len(hashes))
    if fraction is not None:
        return np.flatnonzero(hashes < np.uint64(int(fraction * 2.0**64)))
    return np.sort(np.argsort(hashes, kind="stable")[:num_images])


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    parts = np.split(HASHES, [0, 7, 9000, 9000, 15_001])
    return sets.hashed(tmp_path_factory.mktemp("hashed"), parts).index()


def numbers(index, **size):
    subset = select_subset(index, KEYS, **size)
    return np.arange(index.num_records) if subset is None else subset.record_numbers()


def test_hashes_are_blake2b_little_endian():
    digest = hashlib.blake2b(b"a/b.jpg", digest_size=8).digest()
    assert hash_key(b"a/b.jpg") == sum(byte << 8 * n for n, byte in enumerate(digest))


@pytest.mark.parametrize(
    "size",
    [
        *({"fraction": f} for f in (1e-30, 1e-4, 0.01, 0.5, 0.999, 1.0)),
        *({"num_images": n} for n in (1, 2, 10, 7000, 19_999, 20_000, 10**9)),
    ],
)
def test_members_are_those_of_runs_that_began_with_earlier_versions(index, size):
    for _ in range(2):  # Counted, then read from the file that has the counts.
        subset = select_subset(index, KEYS, **size)
        expected = select_all_at_once(HASHES, **size)
        np.testing.assert_array_equal(numbers(index, **size), expected)
        assert len(expected) == (subset or index).num_records


def test_records_with_equal_hashes_are_taken_in_their_order(tmp_path):
    few = np.array([5, 9, 5, 2**64 - 2, 5, 0, 9, 5, 9, 1], np.uint64)
    index = sets.hashed(tmp_path, np.split(few, [3, 4, 7])).index()
    for count in range(1, 11):
        expected = select_all_at_once(few, num_images=count)
        np.testing.assert_array_equal(numbers(index, num_images=count), expected)


def test_larger_subsets_contain_smaller_ones(index):
    by_fraction = [set(numbers(index, fraction=f)) for f in (0.01, 0.1, 0.5, 0.999)]
    by_number = [set(numbers(index, num_images=n)) for n in (1, 10, 200, 9000)]
    for selections in (by_fraction, by_number):
        assert all(a < b for a, b in itertools.pairwise(selections))
    assert [len(one) for one in by_number] == [1, 10, 200, 9000]
    # The size is binomial: within four standard deviations.
    for fraction, one in zip((0.01, 0.1, 0.5), by_fraction, strict=False):
        deviation = (fraction * (1 - fraction) * 2e4) ** 0.5
        assert abs(len(one) - fraction * 20_000) < 4 * deviation


def test_classes_keep_their_fractions_within_sampling_noise(index):
    classes = np.arange(20_000) % 10
    chosen = np.bincount(classes[numbers(index, fraction=0.1)], minlength=10)
    assert np.all(np.abs(chosen - 200) < 4 * 13.4)


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
def test_wrong_sizes_raise(index, wrong):
    with pytest.raises(ValueError, match=r"fraction|num_images"):
        select_subset(index, KEYS, **wrong)


def test_the_complement_is_the_rest(index):
    kept = numbers(index, fraction=0.98)
    left = select_complement(index, KEYS, fraction=0.98)
    assert sorted([*kept, *left.record_numbers()]) == list(range(20_000))
    assert left.num_records == 20_000 - len(kept)
    assert abs(left.num_records - 400) < 4 * (0.02 * 0.98 * 2e4) ** 0.5


def test_a_fraction_that_leaves_nothing_raises(index):
    with pytest.raises(ValueError, match="leaves out none of 20000 images"):
        select_complement(index, KEYS, fraction=1.0)


def test_memory_does_not_grow_with_the_set(tmp_path, monkeypatch):
    """A subset of 1,000 images costs the same of 100 shards as of 400, but for them."""
    # How many of several threads overlap is a matter of chance.
    monkeypatch.setattr(subsets, "_THREADS", 1)

    def peak_and_kept(shards):
        hashes = np.random.default_rng(0).integers(2**64, size=20_000, dtype=np.uint64)
        index = sets.hashed(tmp_path / str(shards), [hashes] * shards).index()
        tracemalloc.start()
        subset = select_subset(index, KEYS, num_images=1000)
        assert subset.num_records == 1000
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak, kept

    (small_peak, small_kept), (peak, kept) = peak_and_kept(100), peak_and_kept(400)
    assert peak < 2 * small_peak  # The hashes of 400 shards have 64 MB.
    assert kept - small_kept < 300 * 1000  # Bytes a shard, of 160,000.


def test_counts_are_read_from_a_file_once_they_are_known(tmp_path, monkeypatch):
    source = sets.hashed(tmp_path, np.split(HASHES, 4))
    expected = numbers(source.index(), num_images=77)
    (stored,) = (tmp_path / "index").glob("*.subset-*.npy")
    fresh = TFRecords(source.pattern)
    subset = select_subset(fresh.index(), KEYS, num_images=77)
    np.testing.assert_array_equal(subset.record_numbers(), expected)
    monkeypatch.setattr(subsets.KeyHashes, "map", None)  # Nothing is counted again.
    again = select_subset(fresh.index(), KEYS, num_images=77)
    assert again.num_records == 77
    # Another set in the same folder has other counts.
    monkeypatch.undo()
    other = sets.hashed(tmp_path, np.split(HASHES[:10_000], 4))
    kept = select_all_at_once(HASHES[:10_000], num_images=77)
    np.testing.assert_array_equal(numbers(other.index(), num_images=77), kept)
    assert stored.exists()


def test_a_set_that_changed_after_it_was_counted_is_named(tmp_path):
    source = sets.hashed(tmp_path, np.split(HASHES, 4))
    numbers(source.index(), fraction=0.5)
    sets.hashed(tmp_path, np.split(HASHES[::-1], 4))
    subset = select_subset(TFRecords(source.pattern).index(), KEYS, fraction=0.5)
    with pytest.raises(ValueError, match=r"00000-of-00004.*The set has changed"):
        subset.record_numbers()


def read_key_hashes(index, features):
    return np.concatenate(KeyHashes(index, features).map(lambda hashes: hashes))


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
