"""The paper's figures in their form, from the shipped data."""
# SPDX-License-Identifier: Apache-2.0

from tests.scaling.example_runs import grid_of_runs
from vit_scaling.scaling.laws.paper_results import paper_runs
from vit_scaling.scaling.laws.power_law import fit_power_law
from vit_scaling.scaling.laws.runs import Run, Runs
from vit_scaling.scaling.studies import paper_figures


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def test_figure_2_has_two_laws_and_two_panels_at_the_right():
    figure = paper_figures.figure_2()
    assert titles(figure)[:2] == ["ImageNet fine-tune", "ImageNet 10-shot"]
    assert len(figure.axes) == 4
    dashed = [
        line
        for axes in figure.axes
        for line in axes.get_lines()
        if line.get_linestyle() == "--"
    ]
    assert len(dashed) == 2


def test_figure_3_has_three_models_over_images_seen():
    figure = paper_figures.figure_3()
    for axes in figure.axes:
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert set(lines) == {"Ti/16", "B/32", "L/16"}
        assert min(lines["L/16"].get_xdata()) == 20_000 * 4096


def test_figure_9_has_eight_panels():
    figure = paper_figures.figure_9()
    assert len(figure.axes) == 8
    assert "Pets 5-shot" in titles(figure)


def test_any_study_is_drawn_with_what_it_has(tmp_path):
    runs = paper_runs()
    assert len(paper_figures.study_figure(runs, fit_power_law(runs), None).axes) == 3
    plain = Runs(tuple(Run(f"m{k}", k + 1, 0.9 / (k + 1)) for k in range(8)))
    fit = fit_power_law(plain)
    assert len(paper_figures.study_figure(plain, fit, None).axes) == 1
    _, panels = paper_figures.make_figure([["images"]], size=(4, 3))
    paper_figures.draw_images_seen(panels["images"], grid_of_runs())
    assert len(panels["images"].get_lines()) == 6


def test_all_are_written(tmp_path, monkeypatch):
    drawn = paper_figures.figure_3()
    for name in ("figure_2", "figure_3", "figure_9"):
        monkeypatch.setattr(paper_figures, name, lambda: drawn)
    written = paper_figures.write_paper_figures(tmp_path)
    assert [path.name for path in written] == [
        f"figure_{number}{suffix}"
        for number in (2, 3, 9)
        for suffix in (".png", ".svg")
    ]
