"""Duplicates inside one set: found by buckets, confirmed by pixels."""
# SPDX-License-Identifier: Apache-2.0

import collections
import functools
import io

import numpy as np
import pytest
from PIL import Image

from tests.data import sets
from tests.data.deduplication.example_sets import photos
from vit_scaling.data.deduplication import (
    fingerprints,
    internal_duplicates,
    planted_copies,
)
from vit_scaling.data.deduplication.internal_duplicates import BucketEntry, Candidate
from vit_scaling.data.deduplication.matching import Thresholds

ALL = 2**64 - 1


def find(images):
    """(record, original) of the duplicates among some encoded images."""
    thumbnails = [fingerprints.make_thumbnail(data) for data in images]
    entries = [
        entry
        for record, thumbnail in enumerate(thumbnails)
        for entry in internal_duplicates.make_entries(record, thumbnail)
    ]
    candidates = internal_duplicates.collect_candidates(entries, Thresholds())
    matches = {
        record: internal_duplicates.confirm_original(
            record, candidates[record], thumbnails.__getitem__, Thresholds()
        )
        for record in sorted(candidates)
    }
    return [(record, match.key) for record, match in matches.items() if match]


def test_different_images_of_16_bits_are_not_duplicates():
    images = [sets.deep(sets.tile(number, 64)) for number in (0, 1, 8, 0)]
    assert find(images) == [(3, 0)]


@functools.cache
def originals():
    return [data for _, data in photos(12)]


def toned(encoded):
    with Image.open(io.BytesIO(encoded)) as image:
        return sets.jpeg((np.asarray(image) * 0.85 + 10).astype(np.uint8))


def test_copies_of_an_earlier_image_are_duplicates():
    generator = np.random.default_rng(4)
    images = originals()
    kinds = ("re-encoded", "grey", "flipped")
    copies = [
        planted_copies.alter_image(images[n], kind, generator)
        for n, kind in enumerate(kinds)
    ]
    copies += [toned(images[3]), images[7]]
    expected = [(12, 0), (13, 1), (14, 2), (15, 3), (16, 7)]
    assert find([*images, *copies]) == expected
    # Where the copy comes first, the original is what repeats it.
    assert find([*copies, *images]) == [(5, 0), (6, 1), (7, 2), (8, 3), (12, 4)]


def test_distinct_images_are_not_duplicates():
    assert find(originals()) == []


def test_an_original_may_be_a_duplicate_itself():
    image = originals()[0]
    # Each is near both before it; the nearest is named, of equals the first.
    assert find([image, image, image]) == [(1, 0), (2, 0)]


def test_hashes_up_to_three_bits_apart_share_a_bucket():
    generator = np.random.default_rng(0)
    for _ in range(300):
        one = int(generator.integers(0, 2**63))
        other = one
        for bit in generator.choice(64, 3, replace=False):
            other ^= 1 << int(bit)
        assert any(
            one & mask == other & mask for mask in internal_duplicates.bucket_masks()
        )


def test_masks_are_pairs_of_five_bands_that_divide_the_hash():
    bits = collections.Counter(
        bit
        for mask in internal_duplicates.bucket_masks()
        for bit in range(64)
        if mask >> bit & 1
    )
    assert len(internal_duplicates.bucket_masks()) == 10
    assert set(bits.values()) == {4}  # Each band meets the four others.
    assert len(bits) == 64


def test_a_bucket_of_any_size_takes_linear_time():
    members = [BucketEntry(n, False, 5, ALL) for n in range(1000)]
    pairs = list(internal_duplicates.find_candidates(members, Thresholds()))
    first = internal_duplicates.MAX_COMPARED
    assert len(pairs) == first * (first - 1) // 2 + (1000 - first) * first
    assert {record for record, _ in pairs} == set(range(1, 1000))


def test_a_mirrored_entry_is_not_an_original():
    members = [BucketEntry(0, True, 5, ALL), BucketEntry(1, False, 5, ALL)]
    assert list(internal_duplicates.find_candidates(members, Thresholds())) == []
    members = [BucketEntry(0, False, 5, ALL), BucketEntry(1, True, 4, ALL)]
    assert list(internal_duplicates.find_candidates(members, Thresholds())) == [
        (1, Candidate(1, 0, True))
    ]


@pytest.mark.parametrize(("certain", "near"), [(ALL, False), (2**40 - 1, True)])
def test_uncertain_bits_do_not_count(certain, near):
    other = 0xFFF << 50  # Twelve bits that only the first call is certain of.
    members = [BucketEntry(0, False, 0, ALL), BucketEntry(1, False, other, certain)]
    assert (
        bool(list(internal_duplicates.find_candidates(members, Thresholds()))) == near
    )
