"""Near-duplicates of a set are found, whatever the alteration, and nothing else."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.data.deduplication.example_sets import photos
from vit_scaling.data.deduplication import planted_copies
from vit_scaling.data.deduplication.matching import HashIndex, Thresholds

ALL_BITS = np.uint64(2**64 - 1)


def test_the_index_finds_all_within_seven_bits():
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**63, 3000, np.uint64) * np.uint64(2)
    queries = hashes[:200].copy()
    for row in range(200):
        for bit in generator.choice(64, row % 12, replace=False):
            queries[row] ^= np.uint64(1 << int(bit))
    index = HashIndex(hashes, np.full(len(hashes), ALL_BITS))
    all_bits = np.full(len(queries), ALL_BITS)
    rows, entries, distances = index.search(queries, all_bits, 7)
    found = set(zip(rows.tolist(), entries.tolist(), strict=True))
    expected = np.bitwise_count(queries[:, None] ^ hashes[None])
    assert found == set(map(tuple, np.argwhere(expected <= 7).tolist()))
    assert (distances == expected[rows, entries]).all()


def test_planted_copies_of_every_kind_are_found_and_nothing_else():
    result = planted_copies.measure(photos(60), copies=90, thresholds=Thresholds())
    assert result["wrong_original"] == 0
    assert result["others"] == []
    for kind, row in result["recall"].items():
        assert row["of"] == 10
        assert row["found"] >= 8, kind


def test_thresholds_are_checked():
    with pytest.raises(ValueError, match="`distance` must be 0 to 20"):
        Thresholds(distance=40)
