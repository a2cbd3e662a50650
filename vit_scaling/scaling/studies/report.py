"""One self-contained HTML report of a study: the answer, law, frontier, predictions."""
# SPDX-License-Identifier: Apache-2.0

import base64
import pathlib
from collections.abc import Mapping
from typing import Any

import jinja2

from vit_scaling.io_files import write_text
from vit_scaling.scaling.laws.compute_units import parse_unit
from vit_scaling.scaling.studies import result_tables
from vit_scaling.scaling.studies.results import an

TEMPLATE = pathlib.Path(__file__).with_name("report.html")


def write_report(
    result: Mapping[str, Any], figure: pathlib.Path, path: pathlib.Path
) -> None:
    """Write the report: one file below 1 MB that needs no network.

    Args:
        result: From `analysis.analyse`.
        figure: The study's figure as PNG, which becomes part of the page.
        path: The HTML file.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.tests["numeric"] = _is_numeric
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(
        result=result,
        metric=result["metric"].replace("_", " "),
        unit=parse_unit(result["compute_unit"]).label,
        answer=describe_answer(result),
        saturation=result["reading"]["saturation"],
        figure=base64.b64encode(figure.read_bytes()).decode(),
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


def describe_answer(result: Mapping[str, Any]) -> str:
    """Return the study's result in one paragraph: prediction, floor, what limits it."""
    if not result["converged"]:
        return f"The runs show no law: {result['reason']}"
    name, unit = result["target"], parse_unit(result["compute_unit"]).label
    best = min(result["frontier"], key=lambda run: run["error"])
    ahead = result["predictions"][-1]
    sentences = [
        f"The best of {result['runs']} runs, {best['model']} with "
        f"{best['compute']:.4g} {unit}, has {an(name)} of {best['error']:.4g}.",
        f"With {ahead['compute']:.4g} {unit} the law predicts "
        f"{ahead['error']:.4g}{_describe_interval(ahead['interval'], result)}.",
        f"More compute alone would not go below {result['c']:.3g}"
        f"{_describe_interval((result['intervals'] or {}).get('c'), result)}.",
    ]
    known = [
        row for row in result["reading"]["bottlenecks"]
        if row["limited_by"] not in ("", "undecided")
    ]  # fmt: skip
    if known:
        last = known[-1]
        sentences.append(f"{last['model']} gains most from more {last['limited_by']}.")
    return " ".join(sentences)


def _describe_interval(interval: Any, result: Mapping[str, Any]) -> str:
    if interval is None:
        return ""
    low, high = interval
    return f" ({result['level']:.0%} interval {low:.4g} to {high:.4g})"


def _is_numeric(cell: str) -> bool:
    return cell[:1] in tuple("+-0123456789≤") and len(cell) < 12
