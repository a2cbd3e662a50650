"""Fit scaling laws to a table of runs; write coefficients, predictions and plots."""
# SPDX-License-Identifier: Apache-2.0

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vit_scaling.commands import cli

if TYPE_CHECKING:
    from vit_scaling.scaling.laws.law_estimates import LawOptions
    from vit_scaling.scaling.laws.runs import Runs

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
    """Run the command; return 0 only if a law was fitted."""
    parser = cli.make_parser(
        "Fit a scaling law to a table of runs: E = a(C + d)^-b + c to the frontier of "
        "error against compute, or another form. A fit that does not converge prints "
        "no coefficients and returns 1."
    )
    _add_arguments(parser)
    converged = []

    def command(arguments: argparse.Namespace) -> Mapping[str, Any]:
        result = _fit(arguments)
        groups = result.get("groups", [result])
        converged.append(any(not group.get("reason") for group in groups))
        return result

    code = cli.run(parser, argv, command, _show)
    return code if code or all(converged) else 1


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("table").add_argument
    add("--runs", default=["paper"], nargs="+", help="'paper', a CSV, JSON lines or "
        "Parquet file, the folder of a sweep, or folders of training runs")  # fmt: skip
    add("--where", default="", help="rows to keep: dataset=imagenet1k and params>=1e8")
    add("--group_by", default="", help="columns, comma-separated; each of their "
        "values is fitted by itself")  # fmt: skip
    add("--metric", help="which metric to fit; needed if the table has several")
    for field, meaning in COLUMN_FLAGS:
        add(f"--{field}_column", help=f"the column with {meaning}")
    add("--compute_unit", help="unit of all compute, such as gflops or gpu_hours; "
        "default: read from the column's name")  # fmt: skip
    add("--error_unit", choices=["fraction", "percent"], help="of errors and "
        "accuracies; default: percent if the column's name says so")  # fmt: skip
    add = parser.add_argument_group("law").add_argument
    add("--form", default="paper", help="paper, m1, m2, shift, m3, m4 or bnsl (laws of "
        "compute); chinchilla, kaplan, joint or repetition (surfaces of parameters and "
        "examples); isoflop or envelope (best sizes)")  # fmt: skip
    add("--leave_out_largest", type=int, default=0, help="for surfaces: runs with the "
        "largest losses to leave out")  # fmt: skip
    add("--tolerance", type=float, default=0.1, help="for isoflop: width of a budget")
    add("--image_size", type=int, default=224, help="pixels, for named ViT shapes")
    add("--device", help="for surfaces: also print hours on this device")
    add("--method", default="auto", choices=["auto", "frontier", "fission", "surface"],
        help="fit the frontier, the same with intervals that allow for noise (fission),"
        " or the valley of a surface over compute and size; auto takes the surface for "
        "40 runs or more of known size, fission for unknown sizes")  # fmt: skip
    add("--loss", default="log", choices=["log", "linear"])
    add("--robust", default="none", choices=["none", "huber", "soft_l1"])
    add("--robust_scale", type=float, default=0.02, help="where the loss turns linear")
    add("--slack", type=float, default=0.0, help="keep runs this close to the frontier")
    add = parser.add_argument_group("intervals").add_argument
    add("--resamples", type=int, default=1000, help="bootstraps of the runs")
    add("--level", type=float, default=0.95, help="coverage of the intervals")
    add("--seed", type=int, default=0, help="seed of the bootstrap")
    add = parser.add_argument_group("results").add_argument
    add("--predict", default="", help="budgets to predict, comma-separated")
    add("--compute_for", default="", help="errors (or losses) whose compute to find, "
        "comma-separated; --form=paper only")  # fmt: skip
    add("--compare", action="store_true", help="rank other laws by extrapolation")
    add("--output_dir", help="write law.json, frontier.csv, plots and report.html here")


def _fit(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling.scaling.studies import analysis, group_fits

    groups = _read_groups(arguments)
    budgets = analysis.parse_budgets(arguments.predict)
    if arguments.form == "paper" and not arguments.group_by:
        return analysis.analyse(
            groups[""],
            _law_options(arguments),
            budgets=budgets,
            errors=analysis.parse_budgets(arguments.compute_for),
            **cli.select_flags(arguments, "compare", "output_dir"),
        )
    for flag in ("compare", "compute_for"):
        if getattr(arguments, flag):
            raise ValueError(
                f"--{flag} belongs to --form=paper without --group_by. Leave it out, "
                "or choose one group with --where."
            )
    options = group_fits.GroupOptions(
        arguments.form,
        _law_options(arguments),
        arguments.leave_out_largest,
        arguments.tolerance,
    )
    return group_fits.describe(
        groups,
        options,
        budgets=budgets,
        device=arguments.device,
        output_dir=arguments.output_dir,
    )


def _read_groups(arguments: argparse.Namespace) -> "Mapping[str, Runs]":
    from vit_scaling.scaling.studies import analysis
    from vit_scaling.scaling.studies.run_sources import grouped_runs_from

    columns: Any = {
        name.removesuffix("_column"): value
        for name, value in vars(arguments).items()
        if name.endswith("_column") and value
    }
    options: Any = {
        "unit": arguments.compute_unit,
        **cli.select_flags(arguments, "error_unit", "where", "image_size"),
    }
    source = arguments.runs if len(arguments.runs) > 1 else arguments.runs[0]
    if source == "paper":
        return {"": analysis.load_runs(source, metric=arguments.metric)}
    groups = grouped_runs_from(source, arguments.group_by, **options, **columns)
    return {name: runs.of_metric(arguments.metric) for name, runs in groups.items()}


def _law_options(arguments: argparse.Namespace) -> "LawOptions":
    from vit_scaling.scaling.laws.batched_fit import Loss
    from vit_scaling.scaling.laws.law_estimates import LawOptions

    robust = None if arguments.robust == "none" else arguments.robust
    names = ("method", "slack", "resamples", "level", "seed")
    return LawOptions(
        loss=Loss(arguments.loss, robust, arguments.robust_scale),
        **cli.select_flags(arguments, *names),
    )


def _show_groups(result: Mapping[str, Any]) -> str:
    from vit_scaling.scaling.studies.group_fits import text_tables

    lines = []
    for group in result["groups"]:
        lines += [f"[{group['name']}]"] if group["name"] else []
        if group.get("reason"):
            lines += [f"No law: {group['reason']}", ""]
            continue
        lines += [group["answer"], *(f"note: {note}" for note in group["notes"])]
        for header, rows in text_tables(group):
            lines += ["", cli.table(rows, header)]
        lines.append("")
    return "\n".join([*lines, *(f"wrote {path}" for path in result["files"])])


def _show(result: Mapping[str, Any]) -> str:
    if "groups" in result:
        return _show_groups(result)
    from vit_scaling.scaling.laws.compute_units import parse_unit
    from vit_scaling.scaling.studies import result_tables as tables

    lines = [
        f"{result['metric']}: {result['runs']} runs, {result['frontier_runs']} on the "
        "frontier",
        *result["table"],
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
        tables.needed_compute_table(result),
        tables.hidden_runs_table(result),
        tables.laws_table(result),
    ):
        if rows:
            lines += ["", cli.table(rows, header)]
    lines += [f"wrote {path}" for path in result["files"]]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
