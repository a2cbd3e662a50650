"""The search in one process: near-duplicates, duplicates inside, progress."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.data import sets
from tests.data.deduplication.example_sets import photos, planted, removals
from vit_scaling.data.deduplication import local_driver
from vit_scaling.data.deduplication.local_driver import LocalDriver
from vit_scaling.data.deduplication.search import TRAINING_SET, Search


def test_near_duplicates_and_internal_duplicates_are_found(tmp_path):
    train, test = planted(tmp_path)
    found = LocalDriver().run_search(Search(train, [test], include_internal=True))
    assert [(r.record, r.dataset, r.original) for r in removals(found)] == [
        (12, 0, 0),
        (13, 0, 1),
        (14, TRAINING_SET, 5),
    ]
    # The second shard begins with record 7.
    assert list(found.removals) == [1]
    assert (found.unreadable, found.unreadable_against) == (1, (0,))


def test_an_image_near_an_evaluation_image_is_not_an_original(tmp_path):
    image, other = (data for _, data in photos(2))
    records = [sets.example(data, [0]) for data in (image, other, image)]
    train = sets.shards(tmp_path / "train", [records])
    test = sets.shards(tmp_path / "test", [[sets.example(image, [0])]])
    found = LocalDriver().run_search(Search(train, [test], include_internal=True))
    assert [(r.record, r.dataset) for r in removals(found)] == [(0, 0), (2, 0)]


def test_an_unreadable_evaluation_set_is_rejected_before_the_training_set_is_read(
    tmp_path,
):
    junk = sets.shards(tmp_path, [[sets.example(b"junk", [0])]])
    train = sets.shards(tmp_path / "train", [[sets.example(b"", [0])]])
    calls = []
    driver = LocalDriver(lambda done, total: calls.append(done))
    with pytest.raises(ValueError, match="`against` must hold images that decode"):
        driver.run_search(Search(train, [junk]))
    assert not calls


def test_progress_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(local_driver, "_PROGRESS_EVERY", 5)
    train, test = planted(tmp_path)
    calls = []
    LocalDriver(lambda *numbers: calls.append(numbers)).run_search(
        Search(train, [test])
    )
    assert calls == [(5, 16), (10, 16), (15, 16)]
