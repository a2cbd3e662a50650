"""Hashes within a distance are found, against a comparison with all."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from vit_scaling.data.deduplication.hash_index import HashIndex

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
