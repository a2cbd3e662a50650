"""Draw Figures 2, 3 and 9 of the paper, and any study in the form of Figure 4."""
# SPDX-License-Identifier: Apache-2.0

import pathlib
from typing import Any

from vit_scaling.scaling.laws.bootstrap import Bootstrap
from vit_scaling.scaling.laws.findings import group_by_series
from vit_scaling.scaling.laws.paper_results import paper_runs
from vit_scaling.scaling.laws.plot_style import make_figure, model_colours, save_figure
from vit_scaling.scaling.laws.power_law import Fit, fit_power_law
from vit_scaling.scaling.laws.runs import Runs
from vit_scaling.scaling.studies.plots import (
    add_legend,
    axis_label,
    axis_values,
    draw_best_by_data,
    draw_best_by_flops,
    draw_law,
    format_amount,
    set_value_axis,
)

TITLES = {
    "imagenet_finetune": "ImageNet fine-tune",
    "imagenet_10shot": "ImageNet 10-shot",
    "imagenet_5shot": "ImageNet 5-shot",
    "cifar100_10shot": "CIFAR-100 10-shot",
    "cifar100_5shot": "CIFAR-100 5-shot",
    "pets_10shot": "Pets 10-shot",
    "pets_5shot": "Pets 5-shot",
    "birds_10shot": "Birds 10-shot",
    "birds_5shot": "Birds 5-shot",
    "imagenet_v2_finetune": "ImageNet V2 (fine-tuned)",
}


def figure_2() -> Any:
    """Return Figure 2: error against compute, model size and data size."""
    left, centre = "imagenet_finetune", "imagenet_10shot"
    mosaic = [[left, centre, "model"], [left, centre, "data"]]
    figure, panels = make_figure(mosaic, size=(13, 6.2))
    for metric in (left, centre):
        _draw_paper_law(panels[metric], metric)
    runs = paper_runs(centre)
    draw_best_by_flops(panels["model"], runs)
    draw_best_by_data(panels["data"], runs)
    panels["model"].set_title("Best 10-shot error by model")
    panels["data"].set_title("Best 10-shot error by data")
    for panel in panels.values():
        panel.set_ylabel("Error (%)")
    add_legend(figure, runs)
    return figure


def _draw_paper_law(axes: Any, metric: str) -> None:
    runs = paper_runs(metric)
    draw_law(axes, runs, fit_power_law(runs).law)
    axes.set_title(TITLES[metric])


def figure_3() -> Any:
    """Return Figure 3: error against images seen, on 3B images."""
    metrics = ("imagenet_10shot", "imagenet_finetune", "imagenet_v2_finetune")
    models = ("Ti/16", "B/32", "L/16")
    figure, panels = make_figure([metrics], size=(12, 3.8))
    palette = model_colours(paper_runs().models)
    for metric, panel in panels.items():
        runs = paper_runs(metric).where(
            lambda run: run.data_size == 3e9 and run.model in models
        )
        draw_images_seen(panel, runs, palette)
        panel.set_title(TITLES[metric])
        panel.set_ylabel("Error (%)")
    panels[metrics[0]].legend(frameon=False)
    return figure


def draw_images_seen(
    axes: Any, runs: Runs, palette: dict[str, str] | None = None
) -> None:
    """Draw error against images seen, one line per model and data size."""
    palette = palette or model_colours(runs.models)
    for (model, data), rows in group_by_series(runs).items():
        label = model if len(runs.data_sizes) < 2 else f"{model}, {format_amount(data)}"
        x = [run.images_seen for run in rows]
        y = axis_values(runs, [run.error for run in rows])
        axes.plot(x, y, "o-", color=palette[model], label=label, lw=1.4, ms=5)
    axes.set_xscale("log")
    axes.set_xlabel("Images seen")
    set_value_axis(axes, axis_values(runs, runs.error))


def figure_9() -> Any:
    """Return Figure 9: the law on four few-shot datasets, 10 and 5 shots."""
    names = ("imagenet", "cifar100", "pets", "birds")
    mosaic = [[f"{name}_{shots}shot" for name in names] for shots in (10, 5)]
    figure, panels = make_figure(mosaic, size=(15, 7))
    for metric, panel in panels.items():
        _draw_paper_law(panel, metric)
        panel.set_ylabel("Error (%)" if metric.startswith(names[0]) else "")
    add_legend(figure, paper_runs())
    return figure


def study_figure(runs: Runs, fit: Fit, boot: Bootstrap | None) -> Any:
    """Return Figure 4's form for any runs: the law, the best by model and by data.

    The paper's own ImageNet-21k points are not published as numbers, so Figure 4
    itself cannot be drawn.
    """
    right = [name for name, known in (
        ("model", any(run.shape for run in runs)), ("data", bool(runs.data_sizes))
    ) if known]  # fmt: skip
    mosaic = [["law", name] for name in right] or [["law"]]
    figure, panels = make_figure(mosaic, size=(11 if right else 7, 5.2))
    draw_law(panels["law"], runs, fit.law if fit.converged else None, boot)
    metric = runs.metrics[0]
    panels["law"].set_title(TITLES.get(metric, metric.replace("_", " ")))
    if "model" in panels:
        draw_best_by_flops(panels["model"], runs)
    if "data" in panels:
        draw_best_by_data(panels["data"], runs)
    for panel in panels.values():
        panel.set_ylabel(axis_label(runs))
    add_legend(figure, runs)
    return figure


def write_paper_figures(folder: str | pathlib.Path) -> list[pathlib.Path]:
    """Write Figures 2, 3 and 9 as PNG and SVG into a folder."""
    folder = pathlib.Path(folder)
    drawn = {"figure_2": figure_2(), "figure_3": figure_3(), "figure_9": figure_9()}
    return [
        path
        for name, figure in drawn.items()
        for path in save_figure(figure, folder / name)
    ]
