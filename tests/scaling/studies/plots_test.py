"""Panels show what they are given."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.scaling.example_runs import LAW, grid_of_runs
from vit_scaling.scaling.laws.plot_style import make_figure, model_colours
from vit_scaling.scaling.laws.runs import Run, Runs
from vit_scaling.scaling.studies import plots


def test_a_panel_has_a_series_per_model_and_data_size_and_the_law():
    figure, panels = make_figure([["law"]], size=(4, 3))
    plots.draw_law(panels["law"], grid_of_runs(), LAW)
    lines = panels["law"].get_lines()
    assert sum(line.get_linestyle() == ":" for line in lines) == 3 * 2
    assert sum(line.get_linestyle() == "--" for line in lines) == 1
    assert len(panels["law"].collections) == 3 * 2
    assert panels["law"].get_xscale() == panels["law"].get_yscale() == "log"
    assert "0.63" in panels["law"].texts[0].get_text()
    plots.add_legend(figure, grid_of_runs())
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [
        *("fitted law", "Ti/16", "B/32", "L/16"),
        *("Marker size: training set", "1M examples", "100M examples"),
    ]


def test_the_band_is_in_the_legend():
    class Tenth:
        level = 0.95

        def band(self, compute):
            return np.stack([0.9 * LAW.error_at(compute), 1.1 * LAW.error_at(compute)])

    figure, panels = make_figure([["law"]], size=(4, 3))
    plots.draw_law(panels["law"], grid_of_runs(), LAW, Tenth())
    labels = {h.get_label() for h in plots.legend_handles(figure.axes, grid_of_runs())}
    assert {"fitted law", "95% interval of the law"} <= labels


def test_many_models_have_different_colours_and_a_short_legend():
    runs = Runs(tuple(Run(f"m{k}", 1.0 + k, 0.9 - k / 100) for k in range(44)))
    assert len(set(model_colours(runs.models).values())) == 44
    figure, panels = make_figure([["law"]], size=(4, 3))
    plots.draw_law(panels["law"], runs, None)
    handles = plots.legend_handles(figure.axes, runs)
    labels = [handle.get_label() for handle in handles]
    assert labels[0] == "44 models, cheapest first:"
    assert (labels[1], labels[-1], len(labels)) == ("m0", "m43", 13)


def test_a_loss_has_its_own_axis():
    loss = Runs(tuple(Run("m", 10.0**k, 5.0 - k, target="loss", metric="loss")
                      for k in range(1, 4)))  # fmt: skip
    _, panels = make_figure([["law"]], size=(4, 3))
    plots.draw_law(panels["law"], loss, None)
    axes = panels["law"]
    assert axes.get_ylabel() == "Loss"
    assert axes.get_ylim() == pytest.approx((2 * 0.9, 4 * 1.12))
    assert plots.axis_label(grid_of_runs()) == "Error (%)"


def test_the_best_by_model_and_by_data_are_marked():
    _, panels = make_figure([["model", "data"]], size=(6, 3))
    assert plots.draw_best_by_flops(panels["model"], grid_of_runs())
    assert plots.draw_best_by_data(panels["data"], grid_of_runs())
    assert {text.get_text() for text in panels["data"].texts} == {"L/16"}


def test_runs_without_shape_or_data_draw_nothing_there():
    blind = Runs((Run("mine", 1.0, 0.5), Run("mine", 2.0, 0.4)))
    _, panels = make_figure([["model", "data"]], size=(6, 3))
    assert not plots.draw_best_by_flops(panels["model"], blind)
    assert not plots.draw_best_by_data(panels["data"], blind)


@pytest.mark.parametrize(
    ("number", "text"),
    [(3e9, "3B"), (3e7, "30M"), (2e4, "20K"), (7, "7"), (None, "all")],
)
def test_amounts_are_written_as_the_paper_does(number, text):
    assert plots.format_amount(number) == text


def test_coefficients_of_any_size_are_short():
    assert plots.format_number(0.631) == "0.63"
    assert plots.format_number(1.234e-5) == "1.2\\cdot 10^{-5}"


def test_more_data_is_a_larger_marker():
    areas = [plots.marker_area(size, [1.0, 2.0, 3.0]) for size in (1.0, 2.0, 3.0)]
    assert areas == sorted(areas)
    assert plots.marker_area(None, [1.0, 2.0, 3.0]) > areas[-1]  # None is all.
