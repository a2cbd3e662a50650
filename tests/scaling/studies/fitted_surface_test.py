"""The best use of compute agrees with the closed form and with brute force."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json

import numpy as np
import pytest

from tests.scaling.example_runs import SURFACE, runs_on_surface, surface_loss
from vit_scaling import scaling
from vit_scaling.modeling.shapes import SHAPES
from vit_scaling.scaling.laws.runs import Run, Runs
from vit_scaling.scaling.planning.flops import flops, parameters
from vit_scaling.scaling.studies.fitted_surface import fit_cost


@pytest.fixture(scope="module")
def surface():
    return scaling.fit_surface(runs_on_surface(noise=0.003), resamples=40)


def best_size(compute):
    """Hoffmann et al. 2022, equation 4."""
    a, b = SURFACE["alpha"], SURFACE["beta"]
    scale = (a * SURFACE["A"] / (b * SURFACE["B"])) ** (1 / (a + b))
    return scale * (compute / 6) ** (b / (a + b))


def test_parameters_have_the_published_names(surface):
    assert list(surface.parameters.index) == ["E", "A", "B", "alpha", "beta"]
    table = surface.parameters
    assert (table["low"] < table["value"]).all() and (
        table["value"] < table["high"]
    ).all()
    assert table.loc["E", "value"] == pytest.approx(SURFACE["E"], rel=0.02)


def test_the_optimum_is_that_of_the_closed_form():
    exact = scaling.fit_surface(runs_on_surface(), resamples=0)
    table = exact.optimal([1e20, 1e23])
    for row in table.itertuples():
        assert row.size == pytest.approx(best_size(row.compute), rel=0.01)
        assert row.examples == pytest.approx(row.compute / (6 * row.size), rel=1e-6)
        assert row.loss == pytest.approx(surface_loss(row.size, row.examples), rel=1e-4)


def test_the_optimum_has_intervals(surface):
    row = surface.optimal(1e22).iloc[0]
    assert row["size_low"] < row["size"] < row["size_high"]
    assert row["low"] < row["loss"] < row["high"]
    assert surface.predict(1e22).equals(surface.optimal(1e22))


def test_predictions_at_given_sizes(surface):
    table = surface.predict(size=[1e9], examples=[2e10])
    assert table["loss"][0] == pytest.approx(surface_loss(1e9, 2e10), rel=0.01)
    assert table["low"][0] < table["loss"][0] < table["high"][0]
    with pytest.raises(ValueError, match="Give `compute`, or `size` and `examples`"):
        surface.predict(size=[1e9])


def test_hours_and_price_are_those_of_the_peak(surface):
    row = surface.optimal(1e22, device="h100", price_per_hour=2.0).iloc[0]
    # NVIDIA: 989.4 TFLOP/s of dense bfloat16 on an H100 SXM; 40 % of it.
    assert row["device_hours"] == pytest.approx(
        1e22 / (989.4e12 * 0.4 * 3600), rel=0.01
    )
    assert row["price"] == 2 * row["device_hours"]
    with pytest.raises(ValueError, match="Did you mean"):
        surface.optimal(1e22, device="h1000")


def vit_runs():
    rows = []
    for name in ("Ti/16", "S/16", "B/16", "L/16"):
        n = parameters(SHAPES[name]).encoder
        work = flops(SHAPES[name], head="none", classes=None).training
        for images in (1e8, 1e9, 1e10):
            loss = 0.5 + 300 / n**0.4 + 800 / images**0.4
            rows.append(Run(name, work * images, loss, compute_unit="flops",
                images_seen=images, shape=SHAPES[name], target="loss"))  # fmt: skip
    return Runs(tuple(rows))


def test_named_shapes_are_chosen_by_their_own_flops():
    found = scaling.fit_surface(vit_runs(), resamples=0).optimal(1e20).iloc[0]
    losses = {}
    for name, shape in SHAPES.items():
        images = 1e20 / flops(shape, head="none", classes=None).training
        n = parameters(shape).encoder
        losses[name] = 0.5 + 300 / n**0.4 + 800 / images**0.4
    best = min(losses, key=losses.get)
    assert found["shape"] == best
    assert found["shape_loss"] == pytest.approx(losses[best], rel=1e-3)


def test_the_cost_of_an_example_is_found():
    cost = fit_cost(runs_on_surface())
    assert (np.exp(cost.log_scale), cost.power) == pytest.approx((6, 1), rel=1e-6)
    assert cost.examples_for(6e20, 1e9) == pytest.approx(1e11)


def test_outliers_are_noted_with_the_argument_that_leaves_them_out():
    rows = list(runs_on_surface(noise=0.002))
    largest = max(rows, key=lambda run: run.error)
    rows[rows.index(largest)] = dataclasses.replace(largest, error=2 * largest.error)
    found = scaling.fit_surface(Runs(tuple(rows)), resamples=0)
    assert any("leave_out_largest=1" in note for note in found.notes)
    found = scaling.fit_surface(Runs(tuple(rows)), leave_out_largest=1, resamples=0)
    assert any("1 runs with the largest losses are left out" in n for n in found.notes)


def test_figure_report_and_json(surface, tmp_path):
    import matplotlib.pyplot as plt

    ax = surface.plot()
    labels = {text.get_text() for text in ax.get_legend().get_texts()}
    assert labels == {"runs", "95% interval", "best size for the compute"}
    plt.close("all")
    assert surface.answer in surface.report(tmp_path / "r.html").read_text()
    found = json.loads(surface.to_json())
    assert found["parameters"][0]["coefficient"] == "E"
    assert found["optimal"][0]["size"] > 0
    assert surface.get_params()["loss"] == "huber"
