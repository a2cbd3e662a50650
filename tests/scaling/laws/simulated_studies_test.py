"""Intervals hold on simulated studies, and the simulation is right."""
# SPDX-License-Identifier: Apache-2.0

import itertools

import numpy as np
import pytest

from vit_scaling.scaling.laws.simulated_studies import (
    LAW,
    TRUTHS,
    binomial_interval,
    envelope,
    simulate_runs,
    simulate_study,
)


def test_the_envelope_of_the_planted_law_is_the_law():
    at = np.array([1.0, 1e3, 1e7])
    np.testing.assert_allclose(envelope(TRUTHS["law"], at), LAW.error_at(at), rtol=1e-5)


def test_kaplans_envelope_is_a_power_law():
    """N and D scale together: the error falls by C^-(αN αD / (αN + αD))."""
    low, high = envelope(TRUTHS["kaplan"], [1e4, 1e6])
    slope = np.log(low / high) / np.log(100)
    assert slope == pytest.approx(0.4 * 0.35 / 0.75, rel=1e-4)


def test_simulated_runs_have_the_requested_noise():
    surface = TRUTHS["chinchilla"]
    runs = simulate_runs(surface, 4000, 0.03, np.random.default_rng(0))
    sizes = runs.compute / runs.images_seen
    scatter = np.log(runs.error / surface(sizes, runs.images_seen))
    assert scatter.std() == pytest.approx(0.03, rel=0.05)


@pytest.mark.parametrize("truth", TRUTHS)
def test_a_few_studies_hold(truth):
    """The seeds are fixed; at 95 %, fewer than 3 of 4 have odds of 1 in 70."""
    outcomes = [simulate_study(truth, 100, 0.03, k, resamples=40) for k in range(4)]
    assert all(outcome.converged for outcome in outcomes)
    assert sum(outcome.ahead for outcome in outcomes) >= 3
    assert sum(outcome.within for outcome in outcomes) >= 3
    assert all(outcome.ahead_width < 1 for outcome in outcomes)


def test_repeated_runs_differ_in_their_noise_alone():
    generators = [np.random.default_rng(0) for _ in range(2)]
    runs = simulate_runs(TRUTHS["law"], 40, 0.03, generators[0], repeated=10)
    assert runs.rows[:40] == simulate_runs(TRUTHS["law"], 40, 0.03, generators[1]).rows
    again = runs.rows[40:]
    assert [run.key[:-1] for run in again] == [run.key[:-1] for run in runs.rows[:10]]
    assert all(a.error != b.error for a, b in zip(again, runs, strict=False))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["auto", "fission"])
@pytest.mark.parametrize("truth", TRUTHS)
def test_intervals_hold_in_every_cell(truth, method):
    """Ten studies a cell; `benchmark coverage` runs 200.

    Within the 12 cells of a truth, 95 % coverage gives fewer than 105 of 120 with odds
    of 1 in 1,000, and fewer than 7 of 10 in a cell with 1 in 1,000.
    """
    cells = list(itertools.product((40, 100, 300, 1000), (0.005, 0.01, 0.03)))
    held = np.array(
        [
            [
                simulate_study(truth, *cell, study, method=method)[1:3]
                for study in range(10)
            ]
            for cell in cells
        ]
    ).sum(axis=1)
    assert (held >= 7).all()
    assert (held.sum(axis=0) >= 105).all()


def test_the_binomial_interval_is_that_of_clopper_and_pearson():
    """(0.025/2)-quantile by the definition: P(X ≥ k) = α/2 at the lower end."""
    from math import comb

    low, high = binomial_interval(36, 40, 0.95)
    above = sum(comb(40, k) * low**k * (1 - low) ** (40 - k) for k in range(36, 41))
    below = sum(comb(40, k) * high**k * (1 - high) ** (40 - k) for k in range(37))
    assert (above, below) == pytest.approx((0.025, 0.025), abs=1e-9)
