"""Nested subsets by hash."""
# SPDX-License-Identifier: Apache-2.0

import hashlib
import itertools

import numpy as np
import pytest

from vit_scaling.data.subsets import hash_key, select_complement, select_subset

HASHES = np.array([hash_key(f"key {n}".encode()) for n in range(20_000)], np.uint64)


def test_hashes_are_blake2b_little_endian():
    digest = hashlib.blake2b(b"a/b.jpg", digest_size=8).digest()
    assert hash_key(b"a/b.jpg") == sum(byte << 8 * n for n, byte in enumerate(digest))


def test_larger_subsets_contain_smaller_ones():
    by_fraction = [
        set(select_subset(HASHES, fraction=f)) for f in (0.01, 0.1, 0.5, 0.999)
    ]
    by_number = [set(select_subset(HASHES, num_images=n)) for n in (1, 10, 200, 9000)]
    for sets in (by_fraction, by_number):
        assert all(a < b for a, b in itertools.pairwise(sets))
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
