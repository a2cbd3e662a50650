"""Near-duplicates: hashes against the library, planted copies found, others kept."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from PIL import Image

from tests.data import sets
from tests.data.deduplication.example_sets import photos
from vit_scaling.data.deduplication import fingerprints, planted_copies
from vit_scaling.data.deduplication.matching import HashIndex, Thresholds


def dct_hash(grey: Image.Image) -> int:
    """The definition, coefficient by coefficient, in float64."""
    x = np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    low = np.empty((8, 8))
    place = 2 * np.arange(32) + 1
    for i in range(8):
        for j in range(8):
            wave = np.outer(
                np.cos(np.pi * i * place / 64), np.cos(np.pi * j * place / 64)
            )
            low[i, j] = 4 * (x * wave).sum()
    bits = low > np.median(low)
    cells = [(i, j) for i in range(8) for j in range(8)]
    # Rings of squares around the lowest frequency, each by the sum of frequencies.
    cells.sort(key=lambda cell: (max(cell), sum(cell), cell[0]))
    return int("".join("1" if bits[cell] else "0" for cell in cells), 2)


def test_hashes_are_the_perceptual_hash_as_defined():
    for number in range(6):
        grey = Image.fromarray(sets.tile(number, 96)).convert("L")
        (got,), (certain,) = fingerprints.part_hashes(grey, [fingerprints.WHOLE])
        assert int(got) == dct_hash(grey)
        (mirrored,), _ = fingerprints.part_hashes(
            grey, [fingerprints.WHOLE], mirror=True
        )
        turned = grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        differ = (int(mirrored) ^ dct_hash(turned)) & int(certain)
        assert differ.bit_count() == 0


def test_the_index_finds_all_within_seven_bits():
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**63, 3000, np.uint64) * np.uint64(2)
    queries = hashes[:200].copy()
    for row in range(200):
        for bit in generator.choice(64, row % 12, replace=False):
            queries[row] ^= np.uint64(1 << int(bit))
    rows, entries, distances = HashIndex(hashes).near(queries, 7)
    got = set(zip(rows.tolist(), entries.tolist(), strict=True))
    apart = np.bitwise_count(queries[:, None] ^ hashes[None])
    assert got == set(map(tuple, np.argwhere(apart <= 7).tolist()))
    assert (distances == apart[rows, entries]).all()


def test_planted_copies_of_every_kind_are_found_and_nothing_else():
    result = planted_copies.measure(photos(60), copies=70, thresholds=Thresholds())
    assert result["wrong_original"] == 0
    assert result["others"] == []
    for kind, row in result["recall"].items():
        assert row["of"] == 10
        assert row["found"] >= 8, kind


def test_intervals_hold_the_share():
    low, high = planted_copies.wilson(1980, 2000)
    assert low < 0.99 < high
    assert planted_copies.wilson(0, 0) == (0.0, 1.0)
    assert planted_copies.wilson(5, 5)[1] == 1.0


def test_thresholds_are_checked():
    with pytest.raises(ValueError, match="`distance` must be 0 to 20"):
        Thresholds(distance=40)
