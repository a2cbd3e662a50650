"""One self-contained HTML report of a study: law, frontier, predictions."""
# SPDX-License-Identifier: Apache-2.0

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np

from vit_scaling.io_files import write_text
from vit_scaling.scaling.laws.bootstrap import Bootstrap
from vit_scaling.scaling.laws.findings import group_by_series
from vit_scaling.scaling.laws.plot_style import model_colours
from vit_scaling.scaling.laws.power_law import COEFFICIENTS, PowerLaw
from vit_scaling.scaling.laws.runs import Runs
from vit_scaling.scaling.studies.plots import UNITS, format_amount, marker_area

TEMPLATE = pathlib.Path(__file__).with_name("report.html")
_Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # Header and rows.


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
        coefficients=_coefficients(result) if result["converged"] else None,
        predictions=_predictions(result),
        hidden_runs=_hidden_runs(result),
        laws=_laws(result),
        bottlenecks=_bottlenecks(result),
        efficiency=_efficiency(result),
        frontier=_frontier(result),
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
    if boot is not None:
        low, high = boot.band(grid) * 100
        for edge, fill in ((low, None), (high, "tonexty")):
            figure.add_scatter(
                x=grid.tolist(),
                y=edge.tolist(),
                mode="lines",
                line={"width": 0},
                fill=fill,
                fillcolor="rgba(0,0,0,0.12)",
                showlegend=False,
                hoverinfo="skip",
            )
    if law is not None:
        figure.add_scatter(
            x=grid.tolist(),
            y=(law.error_at(grid) * 100).tolist(),
            mode="lines",
            name="law",
            line={"dash": "dash", "color": "black", "width": 2},
        )
    figure.update_layout(
        template="plotly_white",
        height=560,
        margin={"l": 60, "r": 20, "t": 30, "b": 60},
        xaxis={"type": "log", "title": {"text": UNITS[runs.compute_unit]}},
        yaxis={"type": "log", "title": {"text": "error (%)"}},
    )
    return str(figure.to_html(full_html=False, include_plotlyjs=True, div_id="law"))


def _add_runs(figure: Any, runs: Runs) -> None:
    colour, sizes = model_colours(runs.models), runs.data_sizes
    in_legend: set[str] = set()
    for (model, data), rows in group_by_series(runs).items():
        images = [format_amount(run.images_seen) for run in rows]
        figure.add_scatter(
            x=[run.compute for run in rows],
            y=[run.error * 100 for run in rows],
            mode="lines+markers",
            name=model,
            legendgroup=model,
            showlegend=model not in in_legend,
            line={"dash": "dot", "width": 1, "color": colour[model]},
            marker={"size": marker_area(data, sizes) ** 0.5 * 1.3},
            text=[f"{model}, {format_amount(data)} images, {n} seen" for n in images],
            hovertemplate="%{text}<br>%{x:.4g}: %{y:.2f} %<extra></extra>",
        )
        in_legend.add(model)


def _format_range(ends: Sequence[float] | None, form: str = ".4f") -> str:
    return "–" if ends is None else f"{ends[0]:{form}} to {ends[1]:{form}}"


def _coefficients(result: Mapping[str, Any]) -> _Table:
    if not result["intervals"]:
        rows = [[name, f"{result[name]:.4g}"] for name in COEFFICIENTS]
        return ["", "value"], rows
    rows = [
        [name, f"{result[name]:.4g}", _format_range(result["intervals"][name], ".4g")]
        for name in COEFFICIENTS
    ]
    return ["", "value", f"{result['level']:.0%} interval"], rows


def _predictions(result: Mapping[str, Any]) -> _Table:
    return ["compute", "error", "the law", "one new run"], [
        [
            f"{row['compute']:.4g}",
            f"{row['error']:.4f}",
            _format_range(row["interval"]),
            _format_range(row["run_interval"]),
        ]
        for row in result["predictions"]
    ]


def _hidden_runs(result: Mapping[str, Any]) -> _Table:
    rows = []
    for row in result["hindcasts"]:
        cells = ["no law", "", ""]
        if row["predicted"] is not None:
            off = row["relative_error"]
            cells = [
                f"{row['predicted']:.4f}",
                _format_range(row["interval"]),
                "–" if off is None else f"{off:+.1%}",
            ]
        rows.append([row["hidden"], f"{row['actual']:.4f}", *cells])
    return ["without", "measured", "predicted", "interval", "off by"], rows


def _laws(result: Mapping[str, Any]) -> _Table:
    return ["law", "formula", "rms log error ahead of its points", "on its points"], [
        [
            row["name"],
            row["formula"],
            f"{row['extrapolation_error']:.3f}",
            f"{row['fit_error']:.3f}",
        ]
        for row in result["laws"]
    ]


def _bottlenecks(result: Mapping[str, Any]) -> _Table:
    return ["model", "best error", "limited by", "evidence"], [
        [row["model"], f"{row['best_error']:.4f}", row["limited_by"], row["evidence"]]
        for row in result["reading"]["bottlenecks"]
    ]


def _efficiency(result: Mapping[str, Any]) -> _Table:
    table = result["reading"]["sample_efficiency"]
    models = list(table[0]["images"]) if table else []
    return ["error", *models], [
        [f"{row['error']:.4f}", *(_format_images(row, model) for model in models)]
        for row in table
    ]


def _format_images(row: Mapping[str, Any], model: str) -> str:
    images = row["images"][model]
    if images is None:
        return "–"
    bound = "≤ " if model in row["at_most"] else ""
    return bound + format_amount(float(f"{images:.3g}"))


def _frontier(result: Mapping[str, Any]) -> _Table:
    return ["compute", "error", "model", "data", "images seen", "source"], [
        [
            f"{row['compute']:.4g}",
            f"{row['error']:.4f}",
            row["model"],
            format_amount(row["data_size"]),
            format_amount(row["images_seen"]),
            row["source"],
        ]
        for row in result["frontier"]
    ]
