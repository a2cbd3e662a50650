"""Draw runs, frontiers and laws on log axes, in the form of Figures 2 and 4."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vit_scaling.scaling.laws.findings import group_by_series
from vit_scaling.scaling.laws.plot_style import INK, model_colours
from vit_scaling.scaling.laws.power_law import PowerLaw
from vit_scaling.scaling.laws.runs import Floats, Runs
from vit_scaling.scaling.planning.flops import flops

MAX_LEGEND_MODELS = 12


class Law(Protocol):
    """A law of compute."""

    def error_at(self, compute: npt.ArrayLike) -> Floats:
        """Return the error or loss, of the shape of `compute`."""


class Band(Protocol):
    """Intervals of a law."""

    @property
    def level(self) -> float:
        """Nominal coverage."""

    def band(self, compute: npt.ArrayLike) -> Floats:
        """Return the interval, shape (2, *compute)."""


def marker_area(data_size: float | None, sizes: Sequence[float]) -> float:
    """Return a marker's area in points²: larger for more data."""
    if data_size is None and sizes:
        return 110.0  # The whole set, whatever its size.
    if data_size is None or len(sizes) < 2:
        return 34.0
    return float(np.linspace(14, 95, len(sizes))[list(sizes).index(data_size)])


def format_amount(number: float | None) -> str:
    """Return 3e9 as "3B", 3e7 as "30M"; "all" for None."""
    if number is None:
        return "all"
    for suffix, unit in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= unit:
            return f"{number / unit:g}{suffix}"
    return f"{number:g}"


def axis_values(runs: Runs, values: npt.ArrayLike) -> Floats:
    """Return errors in percent, and losses as they are."""
    return np.asarray(values, float) * (100 if runs.target == "error" else 1)


def axis_label(runs: Runs) -> str:
    """Return the label of the axis of `axis_values`."""
    metric = runs.metrics[0].replace("_", " ")
    if runs.target == "loss":
        return "Loss" if metric == "loss" else f"{metric} (loss)"
    return "Error (%)" if metric == "error" else f"{metric} error (%)"


def draw_law(axes: Any, runs: Runs, law: Law | None, boot: Band | None = None) -> None:
    """Draw one panel of Figure 2: a marker per run, dotted series, the dashed law."""
    colour, sizes = model_colours(runs.models), runs.data_sizes
    for (model, data), rows in group_by_series(runs).items():
        style = {"color": colour[model], "linewidth": 0.8, "linestyle": ":"}
        x = [run.compute for run in rows]
        y = axis_values(runs, [run.error for run in rows])
        axes.plot(x, y, zorder=2, alpha=0.8, **style)
        axes.scatter(
            x,
            y,
            s=marker_area(data, sizes),
            color=colour[model],
            edgecolors="white",
            linewidths=0.5,
            alpha=0.9,
            zorder=3,
        )
    if law is not None:
        grid = np.geomspace(runs.compute.min() * 0.8, runs.compute.max() * 1.5, 300)
        if boot is not None:
            low, high = axis_values(runs, boot.band(grid))
            label = f"{boot.level:.0%} interval of the law"
            axes.fill_between(grid, low, high, color=INK, alpha=0.12, lw=0, label=label)
        y = axis_values(runs, law.error_at(grid))
        axes.plot(grid, y, "--", color="black", lw=1.6, zorder=4, label="fitted law")
        if isinstance(law, PowerLaw):
            axes.text(
                *(0.97, 0.96, f"$E = {format_equation(law)}$"),
                transform=axes.transAxes,
                ha="right",
                va="top",
                fontsize=9.5,
                color=INK,
            )
    set_log_axes(axes, runs)


def format_equation(law: PowerLaw) -> str:
    """Return the law in the paper's form, for a plot."""
    a, d = format_number(law.a), format_number(law.d)
    return f"{law.c:.2f} + {a}\\,(C + {d})^{{-{law.b:.2f}}}"


def format_number(number: float) -> str:
    """Return a number with two decimals, or in powers of ten for a plot."""
    if number == 0 or 0.005 <= abs(number) < 1000:
        return f"{number:.2f}"
    mantissa, exponent = f"{number:.1e}".split("e")
    return f"{mantissa}\\cdot 10^{{{int(exponent)}}}"


def set_log_axes(axes: Any, runs: Runs) -> None:
    """Make both axes logarithmic, with errors in percent at round numbers."""
    axes.set_xscale("log")
    axes.set_xlabel(f"Compute ({runs.unit.label})")
    set_value_axis(axes, axis_values(runs, runs.error))
    axes.set_ylabel(axis_label(runs))


def set_value_axis(axes: Any, values: Any) -> None:
    """Make the y axis logarithmic with round numbers; values of 0 are cut off."""
    from matplotlib.ticker import (
        FixedLocator,
        FuncFormatter,
        MaxNLocator,
        NullLocator,
    )

    seen = [value for value in values if value > 0] or [1.0]
    low, high = float(np.min(seen)), float(np.max(seen))
    axes.set_yscale("log")
    axes.set_ylim(low * 0.9, high * 1.12)
    steps = (1, 1.5, 2, 3, 5, 7)
    ticks = [step * 10.0**power for power in range(-4, 5) for step in steps]
    inside = [tick for tick in ticks if low * 0.9 <= tick <= high * 1.12]
    if len(inside) < 3:
        inside = list(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    axes.yaxis.set_major_locator(FixedLocator(inside))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(True, which="major")


def add_legend(figure: Any, runs: Runs, *, columns: int = 1) -> None:
    """Explain curves, colours and marker sizes at the figure's side."""
    figure.legend(
        handles=legend_handles(figure.axes, runs),
        loc="outside right upper",
        frameon=False,
        ncols=columns,
    )


def legend_handles(panels: Sequence[Any], runs: Runs) -> list[Any]:
    """Return the legend's entries: labelled curves, models, sizes of data."""
    from matplotlib.lines import Line2D

    colour, sizes = model_colours(runs.models), runs.data_sizes

    def mark(face: str, area: float, label: str) -> Any:
        style = {"marker": "o", "linestyle": "", "label": label}
        return Line2D([], [], markerfacecolor=face, markeredgecolor="white",
                      markersize=np.sqrt(area), **style)  # fmt: skip

    curves: dict[str, Any] = {}
    for panel in panels:
        found, labels = panel.get_legend_handles_labels()
        curves |= dict(zip(labels, found, strict=True))
    handles = list(curves.values())
    shown = _evenly(runs.models, MAX_LEGEND_MODELS)
    if len(shown) < len(runs.models):
        title = f"{len(runs.models)} models, cheapest first:"
        handles.append(Line2D([], [], linestyle="", label=title))
    handles += [mark(colour[model], 45, model) for model in shown]
    if sizes:
        handles.append(Line2D([], [], linestyle="", label="Marker size: training set"))
    handles += [
        mark("#999999", marker_area(size, sizes), f"{format_amount(size)} examples")
        for size in sizes
    ]
    return handles


def _evenly(names: Sequence[str], count: int) -> list[str]:
    """Return at most `count` names, the first, the last and evenly between them."""
    if len(names) <= count:
        return list(names)
    places = np.linspace(0, len(names) - 1, count).round().astype(int)
    return [names[place] for place in places]


def draw_best_by_flops(axes: Any, runs: Runs, *, image_size: int = 224) -> bool:
    """Draw Figure 2, right top: best error against the model's GFLOPs, forward.

    The model's GFLOPs are those that a run spent per image if its compute is in FLOPs,
    else those of its shape at `image_size` pixels.

    Returns:
        Whether any shape was known.
    """
    colour = model_colours(runs.models)
    best: dict[str, tuple[float, float]] = {}
    gflops, errors = [], []
    for run in runs:
        if run.shape is None:
            continue
        if runs.unit.quantity == "FLOPs" and run.images_seen:
            # Backward is twice forward.
            x = run.compute * runs.unit.factor / run.images_seen / 3e9
        else:
            x = flops(run.shape, head="none", image_size=image_size).encoder / 1e9
        gflops.append(x)
        errors.append(run.error)
        known = best.get(run.model, (x, np.inf))
        best[run.model] = (x, min(known[1], run.error))
    if not best:
        return False
    axes.scatter(gflops, axis_values(runs, errors), s=10, color="#cccccc", zorder=2)
    for model, (x, error) in best.items():
        axes.scatter(x, axis_values(runs, error), s=45, color=colour[model], zorder=3)
    axes.set_xscale("log")
    axes.set_xlabel("GFLOPs of the model")
    set_value_axis(axes, axis_values(runs, errors))
    return True


def draw_best_by_data(axes: Any, runs: Runs) -> bool:
    """Draw Figure 2, right bottom: best error against the data size."""
    colour, sizes = model_colours(runs.models), runs.data_sizes
    if not sizes:
        return False
    for size in sizes:
        rows = [run for run in runs if run.data_size == size]
        best = min(rows, key=lambda run: run.error)
        y, lowest = (
            axis_values(runs, [r.error for r in rows]),
            axis_values(runs, best.error),
        )
        axes.scatter([size] * len(rows), y, s=10, color="#cccccc", zorder=2)
        axes.scatter(size, lowest, s=45, color=colour[best.model], zorder=3)
        axes.annotate(best.model, (size, lowest), xytext=(0, -12),
                      textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(sizes, [format_amount(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("Training examples")
    set_value_axis(axes, axis_values(runs, runs.error))
    axes.set_ylim(bottom=axes.get_ylim()[0] * 0.8 / 0.9)
    return True
