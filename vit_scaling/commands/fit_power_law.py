"""Fit the paper's law to a table of runs; write coefficients, predictions and plots."""
# SPDX-License-Identifier: Apache-2.0

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 only if the law was fitted."""
    made = cli.make_parser(
        "Fit E = a(C + d)^-b + c to the frontier of error against compute. A fit that "
        "does not converge prints no coefficients and returns 1."
    )
    _add_arguments(made)
    converged = []

    def command(arguments: argparse.Namespace) -> Mapping[str, Any]:
        result = _fit(arguments)
        converged.append(result["converged"])
        return result

    code = cli.run(made, argv, command, _show)
    return code if code or all(converged) else 1


def _add_arguments(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add("--runs", default="paper", help="'paper', a CSV file, or a sweep's folder")
    add("--metric", help="which metric to fit; needed if the table has several")
    for field, means in (
        ("model", "the model's name"),
        ("compute", "compute; default: compute, core_days or flops"),
        ("error", "the error"),
        ("metric", "the metric's name"),
        ("data_size", "the number of different training images"),
        ("images_seen", "batch size × steps"),
        ("compute_unit", "the unit of compute"),
        ("seed", "what tells repetitions apart"),
        ("weight", "how much a run counts"),
    ):
        add(f"--{field}_column", help=f"the column with {means}")
    add("--compute_unit", choices=["core_days", "flops"], help="unit of all compute")
    add("--error_unit", default="fraction", choices=["fraction", "percent"])
    add("--loss", default="log", choices=["log", "linear"])
    add("--robust", default="none", choices=["none", "huber", "soft_l1"])
    add("--robust_scale", type=float, default=0.02, help="where the loss turns linear")
    add("--slack", type=float, default=0.0, help="keep runs this close to the frontier")
    add("--resamples", type=int, default=1000, help="bootstraps of the runs")
    add("--level", type=float, default=0.95, help="coverage of the intervals")
    add("--seed", type=int, default=0, help="of the bootstrap")
    add("--predict", default="", help="budgets to predict, comma-separated")
    add("--compare", action="store_true", help="rank other laws by extrapolation")
    add("--output_dir", help="write law.json, frontier.csv, plots and report.html here")


def _fit(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling.scaling.laws.batched_fit import Loss
    from vit_scaling.scaling.laws.run_tables import Columns
    from vit_scaling.scaling.studies import analysis

    columns = Columns(
        **{
            name.removesuffix("_column"): value
            for name, value in vars(arguments).items()
            if name.endswith("_column")
        }
    )
    runs = analysis.load_runs(
        arguments.runs,
        metric=arguments.metric,
        columns=columns,
        compute_unit=arguments.compute_unit,
        error_unit=arguments.error_unit,
    )
    return analysis.analyse(
        runs,
        loss=Loss(
            arguments.loss,
            None if arguments.robust == "none" else arguments.robust,
            arguments.robust_scale,
        ),
        slack=arguments.slack,
        resamples=arguments.resamples,
        level=arguments.level,
        seed=arguments.seed,
        budgets=analysis.parse_budgets(arguments.predict),
        compare=arguments.compare,
        output_dir=arguments.output_dir,
    )


def _show(result: Mapping[str, Any]) -> str:
    lines = [
        f"{result['metric']}: {result['runs']} runs, {result['frontier_runs']} on the "
        "frontier"
    ]
    if not result["converged"]:
        return "\n".join([*lines, f"The fit did not converge: {result['reason']}"])
    lines += [f"E = a(C + d)^-b + c, C in {result['compute_unit']}", ""]
    intervals = result["intervals"] or {}
    level = f"{result['level']:.0%} interval" if intervals else "interval"
    rows = [
        [name, f"{result[name]:.4g}", _range(intervals.get(name), ".4g")]
        for name in ("a", "b", "c", "d")
    ]
    lines += [cli.table(rows, ["", "value", level]), ""]
    lines += [f"rms of log(law/error): {result['rms_log_error']:.4f}"]
    lines += [f"note: {note}" for note in result["notes"]]
    if result["predictions"]:
        rows = [
            [
                f"{row['compute']:.4g}",
                f"{row['error']:.4f}",
                _range(row["interval"], ".4f"),
                _range(row["run_interval"], ".4f"),
            ]
            for row in result["predictions"]
        ]
        lines += ["", cli.table(rows, ["compute", "error", f"law, {level}", "one run"])]
    if result["hindcasts"]:
        rows = [
            [row["hidden"], f"{row['actual']:.4f}", *_hindcast_cells(row)]
            for row in result["hindcasts"]
        ]
        lines += ["", cli.table(rows, ["without", "measured", "predicted", "off by"])]
    if result["laws"]:
        rows = [
            [
                row["name"],
                f"{row['extrapolation_error']:.3f}",
                f"{row['fit_error']:.3f}",
            ]
            for row in result["laws"]
        ]
        lines += ["", cli.table(rows, ["law", "rms log error ahead", "on its points"])]
    lines += [f"wrote {path}" for path in result["files"]]
    return "\n".join(lines)


def _range(ends: Sequence[float] | None, form: str) -> str:
    return "none" if ends is None else f"{ends[0]:{form}} to {ends[1]:{form}}"


def _hindcast_cells(row: Mapping[str, Any]) -> list[str]:
    if row["predicted"] is None:
        return ["no law", ""]
    off = row["relative_error"]  # None: the error of the run is 0.
    return [f"{row['predicted']:.4f}", "" if off is None else f"{off:+.1%}"]
