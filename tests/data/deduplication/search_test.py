"""The steps of the search: outcomes of single records, and their collection."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.data import sets
from tests.data.deduplication.example_sets import photos
from vit_scaling.data.deduplication.internal_duplicates import BucketEntry
from vit_scaling.data.deduplication.search import (
    TRAINING_SET,
    Removal,
    Search,
    SearchResult,
    Unreadable,
    read_image,
)


@pytest.fixture
def records():
    images = [data for _, data in photos(2)]
    return [sets.example(data, [0]) for data in [*images, b"no image"]]


@pytest.fixture
def search(tmp_path, records) -> Search:
    train = sets.shards(tmp_path / "train", [records])
    test = sets.shards(tmp_path / "test", [records])
    return Search(train, [test], include_internal=True)


def test_the_index_does_not_depend_on_the_order_of_images(search, records):
    images = [
        search.fingerprint_evaluation_record((0, number), data)
        for number, data in enumerate(records[:2])
    ]
    for order in (images, images[::-1]):
        index = search.build_index(order)
        found = [
            *search.examine_training_record(7, records[1], index),
            *search.examine_training_record(8, records[0], index),
        ]
        assert [(r.record, r.dataset, r.original) for r in found] == [
            (7, 0, 1),
            (8, 0, 0),
        ]


def test_an_image_that_is_not_near_has_entries_for_the_internal_search(search, records):
    entries = list(search.examine_training_record(3, records[0], None))
    assert [type(entry) for entry in entries] == [BucketEntry, BucketEntry]
    assert [(entry.record, entry.mirrored) for entry in entries] == [
        (3, False),
        (3, True),
    ]
    only_near = Search(search.train, search.against)
    assert not list(only_near.examine_training_record(3, records[0], None))


def test_images_that_do_not_decode_are_outcomes(search, records):
    place = 0, 2
    assert search.fingerprint_evaluation_record(place, records[2]) == Unreadable(0, 2)
    found = list(search.examine_training_record(2, b"no example", None))
    assert found == [Unreadable(TRAINING_SET, 2)]
    assert search.build_index([]) is None


def test_outcomes_are_sorted_and_counted(search):
    first, second = Removal(1, 0, 0, 3, 0.99), Removal(2, TRAINING_SET, 1, 0, 1.0)
    outcomes = [second, Unreadable(0, 1), first, Unreadable(TRAINING_SET, 0)]
    assert search.collect_outcomes(outcomes) == SearchResult(
        {0: [first, second]}, 1, (1,)
    )
    with pytest.raises(ValueError, match="`train` must hold images that decode"):
        search.collect_outcomes([Unreadable(TRAINING_SET, n) for n in range(3)])


def test_datasets_are_found_by_number(search):
    assert search.dataset(TRAINING_SET) is search.train
    assert search.dataset(0) is search.against[0]
    assert read_image(search.train, 0) == photos(1)[0][1]
