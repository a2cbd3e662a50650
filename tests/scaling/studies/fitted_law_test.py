"""A fitted law has coefficients, predictions, a figure, a report and JSON."""
# SPDX-License-Identifier: Apache-2.0

import json

import numpy as np
import pytest
from matplotlib.axes import Axes

from tests.scaling.example_runs import LAW, runs_on_law, runs_on_surface
from vit_scaling import scaling
from vit_scaling.scaling.studies.fitted_law import FORM_NAMES


@pytest.fixture(scope="module")
def law():
    return scaling.fit(runs_on_law(noise=0.005), resamples=100)


def test_the_planted_law_is_within_the_intervals(law):
    table = law.parameters
    assert list(table.index) == ["a", "b", "c", "d"]
    assert list(table.columns) == ["value", "low", "high"]
    for name in ("b", "c"):
        assert table.loc[name, "low"] < getattr(LAW, name) < table.loc[name, "high"]


def test_predictions_have_intervals(law):
    table = law.predict([1e5, 1e6])
    assert list(table.columns) == [
        *("compute", "error", "low", "high", "run_low", "run_high")
    ]
    assert (table["low"] < table["error"]).all()
    assert (table["run_high"] >= table["high"] * 0.99).all()
    assert law.predict(1e5)["error"][0] == pytest.approx(LAW.error_at(1e5), rel=0.03)
    with pytest.raises(ValueError, match="above 0; received -1"):
        law.predict(-1)


def test_the_figure_is_drawn_into_given_or_new_axes(law):
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert law.plot(ax=ax) is ax
    labels = {text.get_text() for text in ax.get_legend().get_texts()}
    assert {"fitted law", "95% interval of the law"} <= labels
    assert isinstance(law.plot(), Axes)
    plt.close("all")


def test_report_and_json_say_the_same(law, tmp_path):
    path = law.report(tmp_path / "new" / "report.html")
    page = path.read_text()
    assert law.answer in page and "data:image/png" in page
    assert len(page) < 1_000_000
    found = json.loads(law.to_json())
    assert found["parameters"][1]["value"] == law.parameters.loc["b", "value"]
    assert found["settings"] == law.get_params()
    assert found["compute_unit"] == "core_days"


@pytest.mark.parametrize("form", FORM_NAMES)
def test_every_form_is_fitted_and_predicts(form):
    law = scaling.fit(runs_on_law(count=60, noise=0.002), form=form, resamples=20)
    table = law.predict(1e4)
    assert table["error"][0] == pytest.approx(LAW.error_at(1e4), rel=0.15)
    assert law.get_params()["form"] == form


def test_a_pure_power_law_is_recovered_in_the_unit_of_the_runs():
    law = type(LAW)(a=6.4, b=0.11, c=0.0, d=0.0)
    runs = runs_on_law(law, count=12, low=1e10, high=1e13)
    table = scaling.fit(runs, form="m1", resamples=50).parameters
    assert table["value"].to_dict() == pytest.approx({"a": 6.4, "b": 0.11}, rel=1e-4)
    assert table.loc["b", "low"] <= 0.11001 and table.loc["b", "high"] >= 0.10999


def test_a_loss_stays_a_loss():
    law = scaling.fit(runs_on_surface(noise=0.001), method="frontier", resamples=20)
    assert "loss" in law.predict(1e23).columns
    assert 1.5 < law.parameters.loc["c", "value"] < 2.2
    assert "the loss is" in law.answer


def test_bad_arguments_are_explained():
    runs = runs_on_law()
    with pytest.raises(ValueError, match="Did you mean 'bnsl'"):
        scaling.fit(runs, form="bnls")
    with pytest.raises(ValueError, match="Only form='paper' has other losses"):
        scaling.fit(runs, form="m1", loss="linear")
    with pytest.raises(ValueError, match="needs 6 runs on the frontier; 5 of 5"):
        scaling.fit(runs_on_law(count=5), form="m4")


def test_too_few_runs_have_a_law_without_intervals():
    law = scaling.fit(runs_on_law(count=6), resamples=20)
    assert not law.has_intervals
    assert np.isnan(law.parameters["low"]).all()
    assert any("no intervals" in note for note in law.notes)
    assert "low" not in law.predict(1e5).columns
