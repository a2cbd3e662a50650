"""What Beam's workers run gives what one process gives (Beam itself is not needed)."""
# SPDX-License-Identifier: Apache-2.0

import collections
import pickle

import pytest

from tests.data import sets
from tests.data.deduplication.example_sets import photos, planted
from vit_scaling.data.deduplication import beam_driver, cleaning
from vit_scaling.data.deduplication.beam_driver import BeamWorker
from vit_scaling.data.deduplication.matching import Thresholds


def sent(value):
    """What arrives at a worker."""
    return pickle.loads(pickle.dumps(value))


def grouped(pairs):
    groups = collections.defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups.items()


def test_workers_match_what_one_process_matches(tmp_path):
    images = [data for _, data in photos(10)]
    train = sets.shards(
        tmp_path / "train", [[sets.example(data, [0]) for data in images[3:]]]
    )
    records = [sets.example(data, [0]) for data in [images[5], b"", images[0]]]
    against = [sets.shards(tmp_path / "test", [records])]
    expected = cleaning.find_removals(train, against, thresholds=Thresholds())
    assert [removal.record for removal in expected.removals] == [2]
    every = [beam_driver._hash_evaluation((0, n), against) for n in range(3)]
    hashed = [row for row in every if row[1] is not None]
    assert [place for place, _ in hashed] == [(0, 0), (0, 2)]
    judge = sent(beam_driver._index(hashed[::-1], Thresholds()))
    rows = [*beam_driver._match((0, 7), sent(train), judge), (0, 1)]
    assert beam_driver._found(rows, 1) == expected
    assert expected.unreadable_against == (1,)
    assert beam_driver._index([], Thresholds()) is None
    assert not list(beam_driver._match((0, 7), train, None))


def test_workers_find_the_repeats_that_one_process_finds(tmp_path):
    train, test = planted(tmp_path)
    near = cleaning.find_removals(train, [test], thresholds=Thresholds()).removals
    expected = cleaning.find_removals(
        train, [test], thresholds=Thresholds(), repeats=True
    )
    gone = frozenset(removal.record for removal in near)
    rows = list(beam_driver._hash_training((0, 16), sent(train), gone))
    unreadable = [row for row in rows if len(row) == 1]
    assert len(unreadable) == expected.unreadable == 1
    # Groups and their members come in any order.
    pairs = [row for row in rows[::-1] if len(row) == 2]
    found = [
        pair
        for group in grouped(pairs)
        for pair in beam_driver._candidates(group, Thresholds())
    ]
    confirmed = [
        row
        for group in grouped(found)
        for row in beam_driver._confirm(group, sent(train), Thresholds())
    ]
    more = beam_driver._found(confirmed).removals
    assert [*near, *more] == expected.removals


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [[], ["direct_running_mode=multi_processing", "direct_num_workers=2"]],
)
def test_both_runners_clean_as_one_process_does(tmp_path, options):
    pytest.importorskip("apache_beam")
    train, test = planted(tmp_path)
    one, many = tmp_path / "one", tmp_path / "many"
    expected = cleaning.clean(train, [test], output_dir=str(one), repeats=True)
    worker = BeamWorker("DirectRunner", options)
    result = cleaning.clean(
        train, [test], output_dir=str(many), repeats=True, worker=worker
    )
    assert result == expected
    for path in one.rglob("*"):
        if path.is_file():
            assert (many / path.relative_to(one)).read_bytes() == path.read_bytes()
    assert sorted(p.name for p in many.iterdir()) == sorted(
        p.name for p in one.iterdir()
    )
