"""The batched solver, against SciPy's least squares on the same residuals."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from scipy.optimize import least_squares

from tests.scaling.example_runs import LAW, runs_on_law
from vit_scaling.scaling.laws.batched_fit import Loss, fit_many


def scipy_cost(compute, error, loss):
    """Return the least cost that SciPy finds from several starts."""

    def residual(p):
        model = np.exp(p[0]) * (compute + p[3]) ** -p[1] + p[2]
        return loss.residual(model, error)

    bounds = ([-50, 1e-3, 0, 0], [50, 10, 1, 1e6])
    starts = [[np.log(0.5), b, 0.1, d] for b in (0.2, 0.5) for d in (0.1, 1)]
    found = [
        least_squares(
            residual,
            start,
            bounds=bounds,
            loss=loss.robust or "linear",
            f_scale=loss.robust_scale,
            x_scale="jac",
        )
        for start in starts
    ]
    return 2 * min(result.cost for result in found)


@pytest.mark.parametrize("scale", ["log", "linear"])
@pytest.mark.parametrize("robust", [None, "huber", "soft_l1"])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_start_of_scipy_is_better(scale, robust, seed):
    runs = runs_on_law(noise=0.03, seed=seed)
    loss = Loss(scale, robust, 0.02)
    fit = fit_many(runs.compute, runs.error, np.ones((1, len(runs))), loss=loss)
    assert fit.converged[0]
    assert fit.cost[0] <= scipy_cost(runs.compute, runs.error, loss) * (1 + 1e-6)


def test_every_row_equals_a_fit_of_its_own_points():
    runs = runs_on_law(noise=0.02)
    weights = np.random.default_rng(0).integers(0, 3, (5, len(runs))).astype(float)
    many = fit_many(runs.compute, runs.error, weights, loss=Loss())
    for k, row in enumerate(weights):
        one = fit_many(runs.compute, runs.error, row[None], loss=Loss())
        assert one.cost[0] == pytest.approx(many.cost[k], rel=1e-5)


def test_the_unit_of_compute_does_not_matter():
    runs, weight = runs_on_law(noise=0.02), np.ones((1, 40))
    days = fit_many(runs.compute, runs.error, weight, loss=Loss()).coefficients[0]
    flops = fit_many(runs.compute * 5e18, runs.error, weight, loss=Loss())
    a, b, c, d = flops.coefficients[0]
    assert [b, c] == pytest.approx(days[1:3], rel=1e-4)
    assert d / 5e18 == pytest.approx(days[3], rel=1e-3)
    assert a * 5e18**-b == pytest.approx(days[0], rel=1e-3)


def test_a_law_without_noise_comes_back_exactly():
    runs = runs_on_law()
    fit = fit_many(runs.compute, runs.error, np.ones((1, 40)), loss=Loss())
    expected = [LAW.a, LAW.b, LAW.c, LAW.d]
    assert fit.coefficients[0] == pytest.approx(expected, rel=1e-4)


def test_options_are_checked():
    with pytest.raises(ValueError, match="`loss` must be"):
        Loss("square")
    with pytest.raises(ValueError, match="`robust` must be"):
        Loss(robust="l1")
    with pytest.raises(ValueError, match="`robust_scale` must be above 0"):
        Loss(robust_scale=0)
