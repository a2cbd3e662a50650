"""Saved plots are reproducible."""
# SPDX-License-Identifier: Apache-2.0

from tests.scaling.example_runs import LAW, grid_of_runs
from vit_scaling.scaling.laws.plot_style import make_figure, save_figure
from vit_scaling.scaling.studies.plots import draw_law


def test_the_same_figure_is_the_same_file(tmp_path):
    texts = []
    for name in ("one", "two"):
        figure, panels = make_figure([["law"]], size=(4, 3))
        draw_law(panels["law"], grid_of_runs(), LAW)
        png, svg = save_figure(figure, tmp_path / name)
        assert png.read_bytes().startswith(b"\x89PNG")
        texts.append(svg.read_text())
    assert texts[0] == texts[1]
