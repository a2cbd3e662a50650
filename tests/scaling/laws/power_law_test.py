"""Planted laws are recovered, and other curves are rejected."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.scaling.example_runs import LAW, runs_on_law
from vit_scaling.scaling.laws.batched_fit import Loss
from vit_scaling.scaling.laws.power_law import PowerLaw, fit_power_law
from vit_scaling.scaling.laws.runs import Run, Runs


def runs_of(compute, error):
    pairs = zip(compute, error, strict=True)
    return Runs(tuple(Run(f"m{k}", *map(float, p)) for k, p in enumerate(pairs)))


@pytest.mark.parametrize("loss", ["log", "linear"])
@pytest.mark.parametrize(
    "law",
    [LAW, PowerLaw(0.26, 0.35, 0.094, 0.01), PowerLaw(0.4, 0.55, 0.02, 0.1)],
)
def test_planted_laws_are_recovered_from_noise(law, loss):
    fit = fit_power_law(runs_on_law(law, noise=0.01, count=60), loss=Loss(loss))
    assert fit.converged
    assert fit.law.b == pytest.approx(law.b, abs=0.03)
    assert fit.law.c == pytest.approx(law.c, abs=0.01)
    grid = np.geomspace(0.3, 2e4)
    assert fit.law.error_at(grid) == pytest.approx(law.error_at(grid), rel=0.03)


def test_a_robust_loss_shrugs_off_an_outlier():
    runs = runs_on_law(count=40)
    k = 12  # One run is 20 % better than it should be.
    error = runs.error.copy()
    error[k] *= 0.8
    spoilt = runs_of(runs.compute, error)
    grid = np.geomspace(0.3, 2e4)
    off = {
        robust: abs(
            fit_power_law(
                spoilt, loss=Loss(robust=robust, robust_scale=0.002)
            ).law.error_at(grid)
            / LAW.error_at(grid)
            - 1
        ).max()
        for robust in (None, "huber")
    }
    assert off["huber"] < 0.5 * off[None]


def test_weights_count():
    """A weight of 2 is the run twice; of 0 not at all."""
    runs = runs_on_law(noise=0.05, count=12)
    heavy = Runs(tuple(Run(r.model, r.compute, r.error, weight=2) for r in runs))
    assert fit_power_law(heavy).law.b == pytest.approx(fit_power_law(runs).law.b)
    none = (*runs.rows, Run("x", 1e-3, 0.01, weight=0))
    assert fit_power_law(Runs(none)).law == fit_power_law(runs).law


def test_seeds_are_averaged_before_the_fit():
    runs = runs_on_law(count=20)
    twice = [
        Run(r.model, r.compute, r.error * (1 + sign * 0.1), seed=str(sign))
        for r in runs
        for sign in (-1, 1)
    ]
    assert fit_power_law(Runs(tuple(twice))).law.b == pytest.approx(LAW.b, abs=1e-3)


def test_formula_slope_and_inverse_agree():
    compute = np.array([0.5, 10.0, 3e3])
    step = 1e-6
    slope = -np.log(LAW.error_at(compute * (1 + step)) / LAW.error_at(compute)) / step
    assert LAW.slope_at(compute) == pytest.approx(slope, rel=1e-4)
    assert LAW.compute_for(float(LAW.error_at(42.0))) == pytest.approx(42.0)
    assert LAW.compute_for(LAW.c) == float("inf")
    assert str(LAW) == "0.12 + 0.63 (C + 0.5)^-0.32"


@pytest.mark.parametrize(
    "error",
    [
        np.linspace(0.9, 0.5, 20),  # Straight on linear axes: no power law.
        0.5 * np.exp(-np.linspace(0, 5, 20)) + 0.1,  # Exponential.
    ],
)
def test_other_curves_do_not_converge_and_show_no_coefficients(error):
    fit = fit_power_law(runs_of(np.linspace(1, 2, 20), error))
    assert not fit.converged
    assert fit.reason
    assert np.isnan(fit.rms_log_error)
    with pytest.raises(RuntimeError, match="did not converge"):
        _ = fit.law


def test_too_few_points_are_rejected():
    with pytest.raises(ValueError, match=r"Too few points: .* received 4"):
        fit_power_law(runs_on_law(count=4))
    falls_once = runs_of(np.arange(1.0, 9), [0.5, 0.4, *[0.45] * 6])
    with pytest.raises(ValueError, match="only 2 of 8 runs are on the frontier"):
        fit_power_law(falls_once)


def test_no_frontier_is_rejected():
    with pytest.raises(ValueError, match="no frontier: the cheapest run"):
        fit_power_law(runs_of(np.arange(1.0, 9), np.linspace(0.4, 0.9, 8)))


def test_an_error_of_zero_has_no_logarithm():
    runs = runs_of(np.arange(1.0, 9), [*np.linspace(0.5, 0.1, 7), 0.0])
    with pytest.raises(ValueError, match="--loss=linear"):
        fit_power_law(runs)


def test_values_that_grow_with_compute_are_recognised_as_accuracies():
    compute = np.geomspace(1, 1e4, 12)
    accuracy = 0.2 + 0.05 * np.arange(12)
    accuracy[:2] = [0.25, 0.2]  # Two runs are on a frontier.
    rows = zip(compute, accuracy, strict=True)
    runs = Runs(tuple(Run(f"m{k}", *map(float, row)) for k, row in enumerate(rows)))
    with pytest.raises(ValueError, match=r"only 2 of 12 .*--accuracy_column"):
        fit_power_law(runs)
    with pytest.raises(ValueError, match=r"no frontier.*--accuracy_column"):
        fit_power_law(runs.take(range(1, 12)))
