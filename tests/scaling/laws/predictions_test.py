"""Predictions with intervals, and what the law would have foreprediction."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.scaling.example_runs import LAW, runs_on_law
from vit_scaling.scaling.laws.bootstrap import bootstrap
from vit_scaling.scaling.laws.law_estimates import LawOptions, estimate_law
from vit_scaling.scaling.laws.paper_results import paper_runs
from vit_scaling.scaling.laws.power_law import fit_power_law
from vit_scaling.scaling.laws.predictions import (
    needed_compute,
    predict,
    predict_hidden_runs,
)


def hidden_run_predictions(runs, resamples):
    law = estimate_law(runs, LawOptions(resamples=20))
    return predict_hidden_runs(runs, law, resamples=resamples)


def test_a_planted_law_is_predicted_within_its_interval():
    runs = runs_on_law(noise=0.01)
    boot = bootstrap(runs, fit_power_law(runs), resamples=200)
    (prediction,) = predict(boot, [1e5])
    truth = float(LAW.error_at(1e5))
    assert prediction.error == pytest.approx(truth, rel=0.03)
    assert prediction.interval[0] <= truth <= prediction.interval[1]


def test_a_budget_must_be_positive():
    runs = runs_on_law(noise=0.01)
    boot = bootstrap(runs, fit_power_law(runs), resamples=50)
    with pytest.raises(ValueError, match="above 0"):
        predict(boot, [0.0])


def test_the_compute_for_an_error_is_the_reverse_of_a_prediction():
    runs = runs_on_law(noise=0.01)
    boot = bootstrap(runs, fit_power_law(runs), resamples=200)
    (row,) = needed_compute(boot, [float(LAW.error_at(1e4))])
    assert row.interval[0] < 1e4 < row.interval[1] < 1e5
    predicted = predict(boot, [row.compute, *row.interval])
    assert predicted[0].error == pytest.approx(row.error)
    assert predicted[1].interval[0] == pytest.approx(row.error, rel=1e-4)
    assert predicted[2].interval[1] == pytest.approx(row.error, rel=1e-4)


def test_an_error_below_the_floor_has_no_compute():
    runs = runs_on_law(noise=0.01)
    fit = fit_power_law(runs)
    boot = bootstrap(runs, fit, resamples=50)
    low, floor = boot.intervals()["c"][0], fit.law.c
    below, between = needed_compute(boot, [low / 2, (low + floor) / 2])
    assert below.compute is None and below.interval == (None, None)
    assert between.compute is None and between.interval[1] is None
    assert needed_compute(fit.law, [floor / 2])[0].compute is None
    with pytest.raises(ValueError, match="above 0"):
        needed_compute(boot, [-0.1])


def test_hidden_runs_on_a_law_without_noise_are_predicted():
    for row in hidden_run_predictions(runs_on_law(count=60), resamples=50):
        assert row.predicted == pytest.approx(row.actual, rel=0.01)


def test_g_14_is_predicted_from_the_smaller_models():
    """10-shot: without G/14's run the predicted error is within 3 % of G/14's."""
    rows = {
        row.hidden: row for row in hidden_run_predictions(paper_runs(), resamples=50)
    }
    assert abs(rows["models G/14"].relative_error) < 0.03
    assert rows["models L/16, g/14, G/14"].relative_error > 0.2  # And not from B/16.


def test_too_few_runs_left_give_no_prediction():
    rows = hidden_run_predictions(runs_on_law(count=8, noise=0.01), resamples=20)
    assert any(row.predicted is None and row.relative_error is None for row in rows)
