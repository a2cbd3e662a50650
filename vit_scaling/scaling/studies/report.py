"""One self-contained HTML report of a study: law, frontier, predictions."""
# SPDX-License-Identifier: Apache-2.0

import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_scaling.scaling.laws.bootstrap import Bootstrap
from vit_scaling.scaling.laws.findings import series
from vit_scaling.scaling.laws.plot_style import model_colours
from vit_scaling.scaling.laws.power_law import COEFFICIENTS, PowerLaw
from vit_scaling.scaling.laws.runs import Runs
from vit_scaling.scaling.studies.plots import UNITS, amount, marker_area

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:1000px;
margin:2em auto;padding:0 1em}h1{font-size:1.6em}h2{font-size:1.2em;margin-top:2em}
table{border-collapse:collapse;font-size:.9em}th,td{padding:.25em .8em;
border-bottom:1px solid #ddd;text-align:left}td.n{text-align:right;white-space:nowrap;
font-variant-numeric:tabular-nums}.note{color:#8a4b00}.bad{color:#a00000}
.scroll{overflow-x:auto}
"""


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
        law: None if none was fitted.
        boot: None if there are no intervals.
        result: What `study.analyse` returns.
        path: The HTML file.
    """
    metric = html.escape(result["metric"].replace("_", " "))
    parts = [
        f"<h1>Scaling study: {metric}</h1>",
        f"<p>{result['runs']} runs, {result['frontier_runs']} of them on the frontier. "
        f"Compute in {html.escape(result['compute_unit'])}.</p>",
        _law(result),
        _figures(runs, law, boot),
        "<h2>Predictions</h2>",
        _predictions(result),
        "<h2>Had the largest runs been unknown</h2>",
        _hindcasts(result),
        _laws(result),
        "<h2>What holds each model back</h2>",
        _bottlenecks(result),
        "<h2>Images needed for equal error (largest data)</h2>",
        _efficiency(result),
        "<h2>Frontier</h2>",
        _frontier(result),
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>Scaling study: {metric}</title><style>{_STYLE}</style></head><body>"
        f"{''.join(parts)}</body></html>\n"
    )
    path.write_text(page, encoding="utf-8")


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def cell(value: Any) -> str:
        text = html.escape(str(value))
        numeric = bool(text) and text[0] in "+-0123456789≤" and len(text) < 12
        return f'<td class="n">{text}</td>' if numeric else f"<td>{text}</td>"

    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _range(ends: Sequence[float] | None, form: str = ".4f") -> str:
    return "–" if ends is None else f"{ends[0]:{form}} to {ends[1]:{form}}"


def _law(result: Mapping[str, Any]) -> str:
    if not result["converged"]:
        reason = html.escape(result["reason"])
        return f'<h2>Law</h2><p class="bad">The fit did not converge: {reason}</p>'
    intervals = result["intervals"] or {}
    header = ["", "value"]
    if intervals:
        header.append(f"{result['level']:.0%} interval")
    rows = [
        [name, f"{result[name]:.4g}"]
        + ([_range(intervals[name], ".4g")] if intervals else [])
        for name in COEFFICIENTS
    ]
    notes = "".join(
        f'<p class="note">{html.escape(note)}</p>' for note in result["notes"]
    )
    ends = result["reading"]["saturation"]
    said = (
        f"The local slope is at most {ends['steepest']:.2f}; it stays above half of "
        f"that from {ends['straight_from']:.3g} to {ends['straight_to']:.3g}. At the "
        f"largest run {ends['floor_share']:.0%} of the error is the floor c."
    )
    return (
        "<h2>Law: E = a(C + d)<sup>-b</sup> + c</h2>"
        + _table(header, rows)
        + f"<p>Root mean square of log(law/error) on the frontier: "
        f"{result['rms_log_error']:.4f}. {said}</p>{notes}"
    )


def _figures(runs: Runs, law: PowerLaw | None, boot: Bootstrap | None) -> str:
    import plotly.graph_objects as go  # pip install "vit_scaling[plots]"

    figure = go.Figure()
    colour, sizes = model_colours(runs.models), runs.data_sizes
    named: set[str] = set()
    for (model, data), rows in series(runs).items():
        figure.add_scatter(
            x=[run.compute for run in rows],
            y=[run.error * 100 for run in rows],
            mode="lines+markers",
            name=model,
            legendgroup=model,
            showlegend=model not in named,
            line={"dash": "dot", "width": 1, "color": colour[model]},
            marker={"size": marker_area(data, sizes) ** 0.5 * 1.3},
            text=[_hover(model, data, run.images_seen) for run in rows],
            hovertemplate="%{text}<br>%{x:.4g}: %{y:.2f} %<extra></extra>",
        )
        named.add(model)
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


def _hover(model: str, data: float | None, images: float | None) -> str:
    return f"{model}, {amount(data)} images, {amount(images)} seen"


def _predictions(result: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{row['compute']:.4g}",
            f"{row['error']:.4f}",
            _range(row["interval"]),
            _range(row["run_interval"]),
        ]
        for row in result["predictions"]
    ]
    if not rows:
        return "<p>None: there is no law.</p>"
    return _table(["compute", "error", "where the law lies", "one new run"], rows)


def _hindcasts(result: Mapping[str, Any]) -> str:
    rows = []
    for row in result["hindcasts"]:
        said = ["no law", "", ""]
        if row["predicted"] is not None:
            said = [
                f"{row['predicted']:.4f}",
                _range(row["interval"]),
                _share(row["relative_error"]),
            ]
        rows.append([row["hidden"], f"{row['actual']:.4f}", *said])
    if not rows:
        return "<p>None: there is no law.</p>"
    return _table(["without", "came out", "foretold", "interval", "off by"], rows)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1%}"


def _laws(result: Mapping[str, Any]) -> str:
    if not result["laws"]:
        return ""
    rows = [
        [
            row["name"],
            row["formula"],
            f"{row['extrapolation_error']:.3f}",
            f"{row['fit_error']:.3f}",
        ]
        for row in result["laws"]
    ]
    header = ["law", "formula", "rms log error ahead of its points", "on its points"]
    return "<h2>Other laws</h2>" + _table(header, rows)


def _bottlenecks(result: Mapping[str, Any]) -> str:
    rows = [
        [row["model"], f"{row['best_error']:.4f}", row["limited_by"], row["evidence"]]
        for row in result["reading"]["bottlenecks"]
    ]
    return _table(["model", "best error", "limited by", "evidence"], rows)


def _efficiency(result: Mapping[str, Any]) -> str:
    found = result["reading"]["sample_efficiency"]
    if not found:
        return "<p>The runs do not say how many images they saw.</p>"
    models = list(found[0]["images"])
    rows = [
        [f"{row['error']:.4f}", *(_images(row, model) for model in models)]
        for row in found
    ]
    told = "<p>–: no run of the model reaches this error. ≤: its shortest run does.</p>"
    return _table(["error", *models], rows) + told


def _images(row: Mapping[str, Any], model: str) -> str:
    images = row["images"][model]
    if images is None:
        return "–"
    return f"{'≤ ' if model in row['at_most'] else ''}{_short(images)}"


def _short(number: float) -> str:
    return amount(float(f"{number:.3g}"))


def _frontier(result: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{row['compute']:.4g}",
            f"{row['error']:.4f}",
            row["model"],
            amount(row["data_size"]),
            amount(row["images_seen"]),
            row["source"],
        ]
        for row in result["frontier"]
    ]
    header = ["compute", "error", "model", "data", "images seen", "source"]
    return _table(header, rows)
