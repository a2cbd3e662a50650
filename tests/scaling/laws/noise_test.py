"""Noise is measured between seeds, and bounded by the lower edge of the runs."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import numpy as np
import pytest

from tests.scaling.example_runs import LAW, runs_on_law
from vit_scaling.scaling.laws.noise import (
    bound_noise,
    count_repetitions,
    noise_between_seeds,
)
from vit_scaling.scaling.laws.runs import Runs

NOISE = 0.02
EXCESSES = {
    "none": lambda generator, count: np.zeros(count),
    "valley": lambda generator, count: 0.3 * generator.random(count) ** 2,
    "exponential": lambda generator, count: generator.exponential(0.02, count),
    "uniform": lambda generator, count: 0.1 * generator.random(count),
    "two sizes": lambda generator, count: 0.05 * generator.integers(0, 2, count),
}


def with_excess(name, count=8000):
    runs = runs_on_law(noise=NOISE, count=count, low=10)
    excess = EXCESSES[name](np.random.default_rng(1), count)
    rows = zip(runs, np.exp(excess), strict=True)
    return Runs(tuple(dataclasses.replace(r, error=r.error * e) for r, e in rows))


@pytest.mark.parametrize("name", EXCESSES)
def test_the_bound_is_above_the_noise_for_any_excess(name):
    """Lewis and Thompson 1981; quantiles of 8,000 runs are within 5 %."""
    bound = bound_noise(LAW, with_excess(name))
    assert bound > 0.95 * NOISE
    assert bound < 2 * NOISE
    if name == "none":
        assert bound == pytest.approx(NOISE, rel=0.05)


def repeated(seeds):
    """Return runs with as many seeds as the list says."""
    runs = runs_on_law(count=40)
    generator = np.random.default_rng(0)
    return Runs(
        tuple(
            dataclasses.replace(
                run, seed=str(k), error=run.error * np.exp(NOISE * generator.normal())
            )
            for run, count in zip(runs, seeds, strict=False)
            for k in range(count)
        )
    )


def test_repetitions_give_the_noise():
    assert noise_between_seeds(repeated([8] * 40)) == pytest.approx(NOISE, rel=0.1)
    assert noise_between_seeds(repeated([2] * 9 + [1] * 31)) is None
    assert noise_between_seeds(repeated([2] * 10)) is not None


def test_repetitions_are_counted_in_the_order_of_the_averaged_runs():
    seeds = [1, 3, 2, 1]
    runs = repeated(seeds)
    assert count_repetitions(runs).tolist() == seeds
    assert [run.model for run in runs.averaged_over_seeds()] == ["m0", "m1", "m2", "m3"]
