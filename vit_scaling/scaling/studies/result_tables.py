"""Tables of a study's result as text cells, for the report and the command line.

Each function takes the result of `analysis.analyse` and returns a header and rows.
"""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.scaling.laws.compute_units import parse_unit
from vit_scaling.scaling.laws.doublings import FACTORS
from vit_scaling.scaling.laws.findings import NOTHING_TO_COMPARE
from vit_scaling.scaling.laws.power_law import COEFFICIENTS
from vit_scaling.scaling.studies.plots import format_amount

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def _format_range(ends: Sequence[float] | None, form: str = ".4f") -> str:
    return "none" if ends is None else f"{ends[0]:{form}} to {ends[1]:{form}}"


def _compute_header(result: Mapping[str, Any]) -> str:
    return f"compute ({parse_unit(result['compute_unit']).label})"


def coefficients_table(result: Mapping[str, Any]) -> Table:
    """Table of the law's coefficients and their intervals."""
    if not result["intervals"]:
        rows = [[name, f"{result[name]:.4g}"] for name in COEFFICIENTS]
        return ["", "value"], rows
    rows = [
        [name, f"{result[name]:.4g}", _format_range(result["intervals"][name], ".4g")]
        for name in COEFFICIENTS
    ]
    middle = result["reference"]  # What a means where 1 is far from every run.
    rows.append(
        [
            f"{result['target']} at {middle['compute']:.4g}",
            f"{middle['error']:.4g}",
            _format_range(middle["interval"], ".4g"),
        ]
    )
    return ["", "value", f"{result['level']:.0%} interval"], rows


def predictions_table(result: Mapping[str, Any]) -> Table:
    """Table of predictions at new budgets."""
    return [_compute_header(result), result["target"], "the law", "one new run"], [
        [
            f"{row['compute']:.4g}",
            f"{row['error']:.4f}",
            _format_range(row["interval"]),
            _format_range(row["run_interval"]),
        ]
        for row in result["predictions"]
    ]


def needed_compute_table(result: Mapping[str, Any]) -> Table:
    """Table of the compute for each error that was asked for."""
    rows = []
    for row in result["needed_compute"]:
        cells = [
            "none suffices" if compute is None else f"{compute:.4g}"
            for compute in (row["compute"], *(row["interval"] or ()))
        ]
        rows.append([f"{row['error']:.4g}", cells[0], " to ".join(cells[1:])])
    return [result["target"], _compute_header(result), "interval"], rows


def hidden_runs_table(result: Mapping[str, Any]) -> Table:
    """Table of the largest runs and their predictions from the others."""
    rows = []
    for row in result["hindcasts"]:
        cells = ["no law", "", ""]
        if row["predicted"] is not None:
            off = row["relative_error"]
            cells = [
                f"{row['predicted']:.4f}",
                _format_range(row["interval"]),
                "" if off is None else f"{off:+.1%}",
            ]
        rows.append([row["hidden"], f"{row['actual']:.4f}", *cells])
    return ["without", "measured", "predicted", "interval", "off by"], rows


def laws_table(result: Mapping[str, Any]) -> Table:
    """Table of laws, the best at extrapolation first."""
    header = ["law", "formula", "rms log error ahead of its points", "95 %"]
    return [*header, "times the best", "on its points"], [
        [
            row["name"],
            row["formula"],
            f"{row['extrapolation_error']:.3f}",
            _format_range(row["interval"], ".3f"),
            "best"
            if row is result["laws"][0]
            else _format_range(row["ratio_to_best"], ".2f"),
            f"{row['fit_error']:.3f}",
        ]
        for row in result["laws"]
    ]


def bottlenecks_table(result: Mapping[str, Any]) -> Table:
    """Table of what limits each model of which anything can be compared."""
    header = ["model", "best error", "limited by"]
    gains = [f"doubled {factor} gains" for factor in FACTORS]
    return [*header, *gains, "longer training makes it worse on"], [
        [
            row["model"],
            f"{row['best_error']:.4f}",
            row["limited_by"],
            *(_format_gain(row["doublings"].get(factor)) for factor in FACTORS),
            format_amount(row["worsens_from"]) + " images"
            if row["worsens_from"]
            else "",
        ]
        for row in result["reading"]["bottlenecks"]
        if row["evidence"] != NOTHING_TO_COMPARE
    ]


def _format_gain(gain: Mapping[str, Any] | None) -> str:
    if gain is None:
        return ""
    ends = gain["interval"]
    interval = f" ({ends[0]:.1%} to {ends[1]:.1%})" if ends else ""
    return f"{gain['estimate']:.1%}{interval}"


def sample_efficiency_table(result: Mapping[str, Any]) -> Table:
    """Table of the images that each model needs for equal error."""
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
    text = bound + format_amount(float(f"{images:.3g}"))
    ends = row.get("intervals", {}).get(model)
    if ends is None:
        return text
    low, high = (
        "never" if end is None else format_amount(float(f"{end:.3g}")) for end in ends
    )
    return f"{text} ({low} to {high})"


def frontier_table(result: Mapping[str, Any]) -> Table:
    """Table of the runs on the frontier."""
    return [
        _compute_header(result),
        "error",
        "model",
        "data",
        "images seen",
        "source",
    ], [
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
