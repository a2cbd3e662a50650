"""The method follows from the table, and what it means is noted."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import numpy as np
import pytest

from tests.scaling.example_runs import runs_on_law
from vit_scaling.scaling.laws.batched_fit import Loss
from vit_scaling.scaling.laws.law_estimates import LawOptions, estimate_law
from vit_scaling.scaling.laws.paper_results import paper_runs
from vit_scaling.scaling.laws.power_law import PowerLaw
from vit_scaling.scaling.laws.runs import Runs
from vit_scaling.scaling.laws.simulated_studies import TRUTHS, envelope, simulate_runs


def simulated(truth="law", count=120, noise=0.01, seed=0):
    return simulate_runs(TRUTHS[truth], count, noise, np.random.default_rng(seed))


def changed(runs, **values):
    return Runs(tuple(dataclasses.replace(run, **values) for run in runs))


@pytest.mark.parametrize(
    ("metric", "coefficients"),
    [
        ("imagenet_finetune", (0.255, 0.355, 0.094)),
        ("imagenet_10shot", (0.634, 0.329, 0.128)),
    ],
)
def test_the_papers_laws_are_those_of_the_frontier(metric, coefficients):
    estimate = estimate_law(paper_runs(metric), LawOptions(resamples=20))
    law = estimate.fit.law
    assert estimate.method == "frontier"
    assert (law.a, law.b, law.c) == pytest.approx(coefficients, abs=6e-4)


def test_many_noisy_runs_of_known_size_are_fitted_by_a_surface():
    runs = simulated("chinchilla", 300, 0.03)
    estimate = estimate_law(runs, LawOptions(resamples=100))
    assert estimate.method == "surface"
    assert estimate.noise == pytest.approx(0.03, rel=0.15)
    at = np.array([1e3, 1e7])
    low, high = estimate.bootstrap.band(at)
    truth = envelope(TRUTHS["chinchilla"], at)
    assert (low < truth).all() and (truth < high).all()
    frontier = estimate_law(runs, LawOptions(method="frontier", resamples=100))
    off = np.log(frontier.fit.law.error_at(at) / truth)
    assert (off < -0.01).all()  # The frontier keeps the lucky runs.


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"images_seen": None}, "size of their models is not known"),
        ({"data_size": 1e3}, "data sizes differ"),
        ({"error": 0.0}, "an error of 0"),
    ],
)
def test_a_surface_needs_sizes_and_one_data_set(values, reason):
    first, *others = simulated().rows
    runs = Runs((dataclasses.replace(first, **values), *others))
    with pytest.raises(ValueError, match=f"'surface' does not suit .*{reason}"):
        estimate_law(runs, LawOptions(method="surface"))


def test_a_frontier_of_many_runs_on_several_data_sets_is_noted():
    first, *others = simulated().rows
    runs = Runs((dataclasses.replace(first, data_size=1e3), *others))
    estimate = estimate_law(runs, LawOptions(resamples=50))
    assert estimate.method == "frontier"
    assert any("their frontier is too low" in note for note in estimate.notes)


@pytest.mark.parametrize(("truth", "noise"), [("law", 0.03), ("chinchilla", 0.03)])
def test_intervals_of_many_runs_of_unknown_size_hold_what_the_frontiers_miss(
    truth, noise
):
    runs = changed(simulated(truth, 1000, noise), images_seen=None)
    estimate = estimate_law(runs, LawOptions(resamples=50))
    frontier = estimate_law(runs, LawOptions(method="frontier", resamples=50))
    assert estimate.method == "fission" and estimate.noise is None
    assert estimate.fit.law == frontier.fit.law
    assert any("size of their models is not known" in note for note in estimate.notes)
    assert any("cannot be separated from the spread" in note for note in estimate.notes)
    middle = float(np.exp(np.log(runs.compute).mean()))
    right = envelope(TRUTHS[truth], middle)
    assert frontier.bootstrap.band(middle)[1] < right
    low, high = estimate.bootstrap.band(middle)
    assert low < right < high < 1.1 * right


def test_repeated_seeds_make_the_intervals_of_unknown_sizes_narrower():
    runs = simulate_runs(TRUTHS["kaplan"], 600, 0.01, np.random.default_rng(0),
                         repeated=30)  # fmt: skip
    without = Runs(runs.rows[:600])
    estimates = [
        estimate_law(rows, LawOptions(method="fission", resamples=100))
        for rows in (runs, without)
    ]
    assert any("between repeated seeds" in note for note in estimates[0].notes)
    bands = [estimate.bootstrap.band(1e3) for estimate in estimates]
    (narrow,), (wide,) = (np.log(high / low) for low, high in bands)
    assert narrow < 0.95 * wide
    right = envelope(TRUTHS["kaplan"], 1e3)
    assert all(low < right < high for low, high in bands)


def test_fission_needs_errors_above_zero():
    first, *others = simulated().rows
    runs = Runs((dataclasses.replace(first, error=0.0), *others))
    with pytest.raises(ValueError, match="'fission' needs errors above 0"):
        estimate_law(runs, LawOptions(method="fission"))


def test_another_loss_takes_the_frontier():
    assert (
        estimate_law(simulated(), LawOptions(loss=Loss("linear"))).method == "frontier"
    )
    few = runs_on_law(noise=0.01, count=30)
    assert estimate_law(few).method == "frontier"


def test_repetitions_measure_the_noise():
    runs = simulated(count=60, noise=0.0)
    generator = np.random.default_rng(1)
    rows = [
        dataclasses.replace(run, seed=str(k), error=run.error * float(np.exp(0.02 * z)))
        for run in runs
        for k, z in enumerate(generator.standard_normal(3))
    ]
    estimate = estimate_law(Runs(tuple(rows)), LawOptions(resamples=50))
    assert estimate.noise == pytest.approx(0.02, rel=0.2)
    assert not any("besides compute and size" in note for note in estimate.notes)


def test_scatter_beyond_that_of_seeds_is_noted():
    runs = simulated(count=60, noise=0.05)
    rows = [dataclasses.replace(run, seed=str(k), error=run.error * (1 + 0.002 * k))
            for run in runs for k in range(2)]  # fmt: skip
    estimate = estimate_law(Runs(tuple(rows)), LawOptions(resamples=50))
    assert any("besides compute and size" in note for note in estimate.notes)


def test_a_joint_surface_that_disagrees_is_noted():
    """The planted law saturates at both ends, which no sum of two powers does."""
    law = PowerLaw(a=1.9, b=0.32, c=0.12, d=30.0)

    def surface(size, duration):
        ratio = np.log(size / duration) / 2
        return law.error_at(size * duration) * np.exp(0.03 * ratio**2)

    generator = np.random.default_rng(0)
    runs = simulate_runs(surface, 100, 0.003, generator)
    estimate = estimate_law(runs, LawOptions(method="surface", resamples=50))
    assert any("depends on the form" in note for note in estimate.notes)


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="method"):
        estimate_law(simulated(), LawOptions(method="surfaces"))


def test_intervals_count_the_surfaces_coefficients():
    """Twelve terms and more follow 40 points, so their residuals are too small."""
    boot = estimate_law(simulated(count=40), LawOptions(resamples=50)).bootstrap
    few = dataclasses.replace(boot, coefficients=4)
    assert boot.coefficients >= 4 + 6
    at = np.array([1e3])
    widths = [np.log(b.band(at)[1] / b.band(at)[0])[0] for b in (boot, few)]
    n = len(boot.fit.points)
    ratio = np.sqrt((n - 4) / (n - boot.coefficients))
    assert widths[0] / widths[1] == pytest.approx(ratio)
