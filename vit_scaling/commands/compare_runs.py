"""Compare the variants of a study: mean and 95 % interval over its seeds."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 only on success."""
    parser = cli.make_parser(__doc__ or "")
    add = parser.add_argument
    add("--runs", required=True, nargs="+", help="runs.csv, or folders of sweeps")
    add("--reference", help="model and variant to subtract, seed by seed")
    return cli.run(parser, argv, _compare, _show)


def _compare(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling.scaling.laws.run_tables import runs_from
    from vit_scaling.scaling.laws.runs import Runs
    from vit_scaling.scaling.laws.seed_comparison import compute_differences, group_runs

    rows = [run for source in arguments.runs for run in runs_from(source)]
    runs, reference = Runs(tuple(rows)), arguments.reference
    differences = compute_differences(runs, reference) if reference else {}
    groups = []
    for group in group_runs(runs):
        difference = differences.get(group)
        groups.append(
            {
                **dataclasses.asdict(group),
                "runs": len(group.accuracies),
                "mean": group.mean,
                "interval": group.interval,
                "difference": difference.mean if difference else None,
                "difference_interval": difference.interval if difference else None,
            }
        )
    return {"reference": reference, "groups": groups}


def _show(result: Mapping[str, Any]) -> str:
    header = ["model", "images seen", "metric", "runs", "accuracy %", "95 %"]
    if result["reference"]:
        header += [f"minus {result['reference']}", "95 % "]
    rows = []
    for group in result["groups"]:
        data = "" if group["data_size"] is None else f" ({group['data_size']:,.0f})"
        row = [
            group["model"] + data,
            "" if group["images_seen"] is None else f"{group['images_seen']:,.0f}",
            group["metric"],
            group["runs"],
            f"{100 * group['mean']:.2f}",
            _interval(group["interval"]),
        ]
        if result["reference"]:
            mean = group["difference"]
            row += [
                "" if mean is None else f"{100 * mean:+.2f}",
                _interval(group["difference_interval"]),
            ]
        rows.append(row)
    return cli.table(rows, header)


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f}"


if __name__ == "__main__":
    raise SystemExit(main())
