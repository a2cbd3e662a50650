"""Fit the paper's law to a table of runs; write coefficients, predictions and plots."""
# SPDX-License-Identifier: Apache-2.0

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli

COLUMN_FLAGS = (
    ("model", "the model's name"),
    ("compute", "training compute; any unit's name is found"),
    ("error", "the error rate"),
    ("accuracy", "the accuracy: one minus it is fitted"),
    ("loss", "a loss, any number of 0 or more"),
    ("perplexity", "the perplexity: its logarithm is fitted"),
    ("size", "the number of parameters, N"),
    ("examples", "the examples or tokens seen, D"),
    ("data_size", "the number of different training examples"),
    ("metric", "the metric's name"),
    ("compute_unit", "the unit of compute"),
    ("seed", "the seed of repetitions"),
    ("run", "the training run of which a row is a checkpoint"),
    ("weight", "the weight in the fit"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 only if the law was fitted."""
    parser = cli.make_parser(
        "Fit E = a(C + d)^-b + c to the frontier of error against compute. A fit that "
        "does not converge prints no coefficients and returns 1."
    )
    _add_arguments(parser)
    converged = []

    def command(arguments: argparse.Namespace) -> Mapping[str, Any]:
        result = _fit(arguments)
        converged.append(result["converged"])
        return result

    code = cli.run(parser, argv, command, _show)
    return code if code or all(converged) else 1


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--runs", default="paper", help="'paper', a CSV, JSON lines or Parquet file, "
        "or the folder of a sweep or of training runs")  # fmt: skip
    add("--where", default="", help="rows to keep: dataset=imagenet1k and params>=1e8")
    add("--metric", help="which metric to fit; needed if the table has several")
    for field, meaning in COLUMN_FLAGS:
        add(f"--{field}_column", help=f"the column with {meaning}")
    add("--compute_unit", help="unit of all compute, such as gflops or gpu_hours; "
        "default: read from the column's name")  # fmt: skip
    add("--error_unit", choices=["fraction", "percent"], help="of errors and "
        "accuracies; default: percent if the column's name says so")  # fmt: skip
    add("--method", default="auto", choices=["auto", "frontier", "surface"],
        help="fit the frontier, or the valley of a surface over compute and size; auto "
        "takes the surface for 40 runs or more of known size")  # fmt: skip
    add("--loss", default="log", choices=["log", "linear"])
    add("--robust", default="none", choices=["none", "huber", "soft_l1"])
    add("--robust_scale", type=float, default=0.02, help="where the loss turns linear")
    add("--slack", type=float, default=0.0, help="keep runs this close to the frontier")
    add("--resamples", type=int, default=1000, help="bootstraps of the runs")
    add("--level", type=float, default=0.95, help="coverage of the intervals")
    add("--seed", type=int, default=0, help="seed of the bootstrap")
    add("--predict", default="", help="budgets to predict, comma-separated")
    add("--compare", action="store_true", help="rank other laws by extrapolation")
    add("--output_dir", help="write law.json, frontier.csv, plots and report.html here")


def _fit(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling.scaling.laws.batched_fit import Loss
    from vit_scaling.scaling.laws.row_reader import TableOptions
    from vit_scaling.scaling.studies import analysis

    columns = {
        name.removesuffix("_column"): value
        for name, value in vars(arguments).items()
        if name.endswith("_column") and value
    }
    runs = analysis.load_runs(
        arguments.runs,
        metric=arguments.metric,
        where=arguments.where,
        options=TableOptions(arguments.compute_unit, arguments.error_unit),
        columns=columns,
    )
    return analysis.analyse(
        runs,
        method=arguments.method,
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
    from vit_scaling.scaling.laws.compute_units import parse_unit
    from vit_scaling.scaling.studies import result_tables as tables

    lines = [
        f"{result['metric']}: {result['runs']} runs, {result['frontier_runs']} on the "
        "frontier"
    ]
    if not result["converged"]:
        return "\n".join([*lines, f"The fit did not converge: {result['reason']}"])
    header, rows = tables.coefficients_table(result)
    lines += [
        f"E = a(C + d)^-b + c, C in {parse_unit(result['compute_unit']).label}",
        "",
        cli.table(rows, header),
        "",
        f"rms of log(law/error): {result['rms_log_error']:.4f}",
        *(f"note: {note}" for note in result["notes"]),
    ]
    for header, rows in (
        tables.predictions_table(result),
        tables.hidden_runs_table(result),
        tables.laws_table(result),
    ):
        if rows:
            lines += ["", cli.table(rows, header)]
    lines += [f"wrote {path}" for path in result["files"]]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
