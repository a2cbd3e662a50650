"""Panels show what they are given."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.scaling.example_runs import LAW, grid_of_runs
from vit_scaling.scaling.laws.plot_style import make_figure
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
    assert len(figure.legends[0].get_texts()) == 3 + 2


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
