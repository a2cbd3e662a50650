"""Intervals cover at their stated rate, and say what they do not know."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import numpy as np
import pytest

from tests.scaling.example_runs import LAW, runs_on_law
from vit_scaling.scaling.laws.bootstrap import bootstrap, draw_counts
from vit_scaling.scaling.laws.power_law import PowerLaw, fit_power_law
from vit_scaling.scaling.laws.runs import Run, Runs

AHEAD = 1e5  # Five times the largest planted compute.


def coverage(draws, *, noise, level=0.95, resamples=300):
    """Return how often the intervals of b, c and the law ahead hold the truth."""
    held = np.zeros(3)
    for seed in range(draws):
        runs = runs_on_law(noise=noise, seed=seed)
        boot = bootstrap(runs, fit_power_law(runs), resamples=resamples, level=level)
        ends = boot.intervals()
        low, high = boot.band(AHEAD)[:, 0]
        held += [
            ends["b"][0] <= LAW.b <= ends["b"][1],
            ends["c"][0] <= LAW.c <= ends["c"][1],
            low <= LAW.error_at(AHEAD) <= high,
        ]
    return held / draws


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.005, 0.02])
def test_intervals_cover_at_their_stated_rate(noise):
    """200 draws of 95 %: three standard errors of a binomial are 4.6 points."""
    assert coverage(200, noise=noise) == pytest.approx([0.95] * 3, abs=0.046)


def test_intervals_cover_in_a_few_draws():
    """Of 30 draws of 90 %, fewer than 22 or all would each be odds below 1 in 100."""
    held = coverage(30, noise=0.02, level=0.9, resamples=100)
    assert (held >= 22 / 30).all()


def on_a_grid(models, seed, noise=0.01):
    """Return runs with E = 0.12 + 0.3 N^-0.66 + 0.3 D^-0.66; compute is N times D.

    The best choice of N at every C is its root: E = 0.12 + 0.6 C^-0.33.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for size in np.geomspace(1, 100, models):
        for images in np.geomspace(1, 256, 8):
            error = 0.12 + 0.3 * size**-0.66 + 0.3 * images**-0.66
            error *= np.exp(noise * generator.standard_normal())
            rows.append(Run(f"m{size:.0f}", float(size * images), float(error)))
    return Runs(tuple(rows))


@pytest.mark.parametrize("models", [5, 11])
def test_the_band_holds_the_envelope_above_which_a_grid_lies(models):
    """Of 20 draws percentiles alone held 14 (5 models) and 6 (11)."""
    envelope = PowerLaw(a=0.6, b=0.33, c=0.12, d=0.0)
    held = []
    for seed in range(20):
        runs = on_a_grid(models, seed)
        boot = bootstrap(runs, fit_power_law(runs), resamples=100)
        at = runs.compute.max() / 10
        low, high = boot.band(at)[:, 0]
        held.append(low <= envelope.error_at(at) <= high)
    assert np.mean(held) >= 0.85


def test_a_wide_interval_of_d_is_noted():
    runs = runs_on_law(noise=0.02, low=5)
    boot = bootstrap(runs, fit_power_law(runs), resamples=200)
    assert any("d is badly determined" in note for note in boot.notes())


def test_a_floor_out_of_sight_is_noted():
    runs = runs_on_law(noise=0.02, high=30)
    boot = bootstrap(runs, fit_power_law(runs), resamples=200)
    assert any("floor c may be zero" in note for note in boot.notes())


def test_the_same_seed_gives_the_same_intervals():
    runs = runs_on_law(noise=0.02)
    fit = fit_power_law(runs)
    first, second = (bootstrap(runs, fit, resamples=50, seed=3) for _ in range(2))
    assert first.intervals() == second.intervals()


def test_a_new_run_scatters_more_than_the_law():
    runs = runs_on_law(noise=0.03)
    boot = bootstrap(runs, fit_power_law(runs), resamples=200)
    law, run = boot.band(100.0), boot.run_band(100.0)
    assert run[0] < law[0] < law[1] < run[1]
    assert law[0] < boot.fit.law.error_at(100.0) < law[1]


def test_b_and_c_move_together():
    runs = runs_on_law(noise=0.02)
    boot = bootstrap(runs, fit_power_law(runs), resamples=200)
    assert boot.correlations()["b,c"] > 0.5


def test_bad_arguments_are_explained():
    runs = runs_on_law(noise=0.02)
    fit = fit_power_law(runs)
    with pytest.raises(ValueError, match="`level` must be between"):
        bootstrap(runs, fit, level=95)
    with pytest.raises(ValueError, match="`resamples` must be at least 20"):
        bootstrap(runs, fit, resamples=3)


def test_rows_of_one_cluster_are_drawn_together():
    counts = draw_counts([4, 7, 4, 9], 50, np.random.default_rng(0))
    assert counts.shape == (50, 4)
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert len(np.unique(counts[:, 0])) > 1


def test_the_interval_of_a_is_on_a_log_scale():
    """On a linear scale it was 0 to 375 where a is determined within a factor."""
    runs = runs_on_law(PowerLaw(a=100.0, b=0.4, c=0.12, d=0.0), noise=0.02, low=1e6,
                       high=1e10)  # fmt: skip
    boot = bootstrap(runs, fit_power_law(runs), resamples=100)
    (low, high), law = boot.intervals()["a"], boot.fit.law
    assert 0 < low < law.a < high
    assert np.log(high / law.a) == pytest.approx(np.log(law.a / low))


def test_split_samples_extend_the_interval_and_do_not_choose_lucky_runs():
    """All runs are on the law, so each frontier is below it but for the split."""
    runs = runs_on_law(noise=0.03, count=400)
    fit = fit_power_law(runs)
    boot = bootstrap(runs, fit, resamples=200, noise=np.full(400, 0.03))
    plain = dataclasses.replace(boot, samples=boot.samples[: -boot.split], split=0)
    at, right = np.array([30.0]), LAW.error_at(30.0)
    (low, high), (plain_low, plain_high) = boot.band(at), plain.band(at)
    assert (low <= plain_low).all() and (plain_high < right).all()
    assert (low < right).all() and (right < high).all()
    split = [PowerLaw(*row).error_at(30.0) for row in boot.samples[-boot.split :]]
    assert np.mean(split) == pytest.approx(right, rel=0.005)
