"""One self-contained HTML report of a study: law, frontier, predictions."""
# SPDX-License-Identifier: Apache-2.0

import pathlib
from collections.abc import Mapping
from typing import Any

import jinja2
import numpy as np

from vit_scaling.io_files import write_text
from vit_scaling.scaling.laws.bootstrap import Bootstrap
from vit_scaling.scaling.laws.findings import group_by_series
from vit_scaling.scaling.laws.plot_style import model_colours
from vit_scaling.scaling.laws.power_law import PowerLaw
from vit_scaling.scaling.laws.runs import Floats, Runs
from vit_scaling.scaling.studies import result_tables
from vit_scaling.scaling.studies.plots import (
    axis_label,
    axis_values,
    format_amount,
    marker_area,
)

TEMPLATE = pathlib.Path(__file__).with_name("report.html")


def write_report(
    runs: Runs,
    law: PowerLaw | None,
    boot: Bootstrap | None,
    result: Mapping[str, Any],
    path: pathlib.Path,
) -> None:
    """Write the report; its plots are interactive and need no network (≤ 6 MB).

    Args:
        runs: The study's runs.
        law: The fitted law; None if the fit did not converge.
        boot: The bootstrap of the law; None if there are no intervals.
        result: From `analysis.analyse`.
        path: The HTML file.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.tests["numeric"] = _is_numeric
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(
        result=result,
        metric=result["metric"].replace("_", " "),
        saturation=result["reading"]["saturation"],
        plot=_interactive_plot(runs, law, boot),
        coefficients=result_tables.coefficients_table(result)
        if result["converged"]
        else None,
        predictions=result_tables.predictions_table(result),
        hidden_runs=result_tables.hidden_runs_table(result),
        laws=result_tables.laws_table(result),
        bottlenecks=result_tables.bottlenecks_table(result),
        efficiency=result_tables.sample_efficiency_table(result),
        frontier=result_tables.frontier_table(result),
    )
    write_text(path, page + "\n")


def _is_numeric(cell: str) -> bool:
    return cell[:1] in tuple("+-0123456789≤") and len(cell) < 12


def _interactive_plot(runs: Runs, law: PowerLaw | None, boot: Bootstrap | None) -> str:
    """Return Figure 2's panel as HTML with plotly's JavaScript."""
    import plotly.graph_objects as go  # pip install "vit_scaling[plots]"

    figure = go.Figure()
    _add_runs(figure, runs)
    grid = np.geomspace(runs.compute.min() * 0.8, runs.compute.max() * 10, 150)
    lines: list[tuple[Floats, dict[str, Any]]] = []
    if boot is not None:
        edge = {"line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
        low, high = axis_values(runs, boot.band(grid))
        fill = {"fill": "tonexty", "fillcolor": "rgba(0,0,0,0.12)"}
        lines += [(low, edge), (high, {**edge, **fill})]
    if law is not None:
        dashes = {"dash": "dash", "color": "black", "width": 2}
        lines.append(
            (axis_values(runs, law.error_at(grid)), {"name": "law", "line": dashes})
        )
    for y, style in lines:
        figure.add_scatter(x=grid.tolist(), y=y.tolist(), mode="lines", **style)
    figure.update_layout(
        template="plotly_white",
        height=560,
        margin={"l": 60, "r": 20, "t": 30, "b": 60},
        xaxis={"type": "log", "title": {"text": f"Compute ({runs.unit.label})"}},
        yaxis={"type": "log", "title": {"text": axis_label(runs)}},
    )
    return str(figure.to_html(full_html=False, include_plotlyjs=True, div_id="law"))


def _add_runs(figure: Any, runs: Runs) -> None:
    colour, sizes = model_colours(runs.models), runs.data_sizes
    in_legend: set[str] = set()
    for (model, data), rows in group_by_series(runs).items():
        images = [format_amount(run.images_seen) for run in rows]
        figure.add_scatter(
            x=[run.compute for run in rows],
            y=axis_values(runs, [run.error for run in rows]).tolist(),
            mode="lines+markers",
            name=model,
            legendgroup=model,
            showlegend=model not in in_legend,
            line={"dash": "dot", "width": 1, "color": colour[model]},
            marker={"size": marker_area(data, sizes) ** 0.5 * 1.3},
            text=[f"{model}, {format_amount(data)} images, {n} seen" for n in images],
            hovertemplate="%{text}<br>%{x:.4g}: %{y:.4g}<extra></extra>",
        )
        in_legend.add(model)
