"""The Pareto frontier, against a comparison of all pairs."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.scaling.example_runs import grid_of_runs
from vit_scaling.scaling.laws.frontier import (
    frontier,
    frontier_indices,
    frontier_mask,
    frontiers_by,
)


def beaten(compute, error, k):
    """Whether another run is at least as good in both, and better in one."""
    no_worse = (compute <= compute[k]) & (error <= error[k])
    return bool((no_worse & ((compute < compute[k]) | (error < error[k]))).any())


@pytest.mark.parametrize("seed", range(5))
def test_frontier_is_what_no_pair_contradicts(seed):
    generator = np.random.default_rng(seed)
    compute, error = generator.integers(1, 30, 60) * 1.0, generator.random(60).round(2)
    kept = frontier_indices(compute, error)
    expected = {k for k in range(60) if not beaten(compute, error, k)}
    pairs = {(compute[k], error[k]) for k in expected}
    assert {(compute[k], error[k]) for k in kept} == pairs
    assert len(kept) == len(pairs)  # Of equal runs one stays.
    assert (np.diff(compute[kept]) > 0).all()
    assert (np.diff(error[kept]) < 0).all()


def test_ties_keep_the_better_and_the_cheaper():
    compute, error = np.array([1.0, 1.0, 2.0, 3.0]), np.array([0.5, 0.4, 0.4, 0.3])
    assert frontier_indices(compute, error).tolist() == [1, 3]


def test_slack_keeps_near_misses():
    compute, error = np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.504, 0.4])
    assert frontier_indices(compute, error).tolist() == [0, 2]
    assert frontier_indices(compute, error, slack=0.01).tolist() == [0, 1, 2]


def test_many_resamples_equal_one_by_one():
    generator = np.random.default_rng(0)
    compute, error = np.arange(1.0, 31), generator.random(30)
    counts = generator.multinomial(30, np.full(30, 1 / 30), size=20).astype(float)
    mask = frontier_mask(error, counts)
    for row, count in zip(mask, counts, strict=True):
        present = np.flatnonzero(count)
        kept = frontier_indices(compute[present], error[present])
        assert np.flatnonzero(row).tolist() == present[kept].tolist()


def test_errors_that_differ_between_resamples_are_not_sorted_in_ties():
    generator = np.random.default_rng(0)
    compute, error = np.repeat(np.arange(1.0, 7), 5), generator.random((20, 30))
    counts = generator.multinomial(30, np.full(30, 1 / 30), size=20).astype(float)
    for slack in (0.0, 0.1):
        mask = frontier_mask(error, counts, slack=slack, compute=compute)
        for row, count, values in zip(mask, counts, error, strict=True):
            present = np.flatnonzero(count)
            kept = frontier_indices(compute[present], values[present], slack=slack)
            assert set(np.flatnonzero(row)) == set(present[kept])


def test_one_frontier_per_model():
    by_model = frontiers_by(grid_of_runs(), lambda run: run.model)
    assert set(by_model) == {"Ti/16", "B/32", "L/16"}
    assert len(frontier(grid_of_runs())) <= sum(map(len, by_model.values()))


def test_bad_arguments_are_explained():
    with pytest.raises(ValueError, match="two lists of one length"):
        frontier_indices(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="`slack` must be 0 or more"):
        frontier_indices(np.ones(2), np.ones(2), slack=-1)
