"""Score scaling laws on the benchmark of "Revisiting Neural Scaling Laws"."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 only on success."""
    parser = cli.make_parser(
        "Fit laws to the first part of learning curves and print the root mean square "
        "log error on the rest. The tables are benchmark.vision.csv and "
        "benchmark.lang.csv of the repository google-research/google-research, folder "
        "revisiting_neural_scaling_laws/data."
    )
    add = parser.add_argument
    add("--table", required=True, help="the benchmark's file, as published")
    add("--forms", default="m1,m2,m3,m4,shift,paper,bnsl", help="laws, comma-separated")
    add("--where", default="", help="rows to keep, such as Model=ViT/B/16")
    add("--published", help="a table with columns Task, Model and m1, m2, …: errors to "
        "print next to the measured ones")  # fmt: skip
    return cli.run(parser, argv, _score, _show)


def _score(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling.scaling.studies.curve_benchmark import run_benchmark

    return run_benchmark(
        arguments.table,
        forms=arguments.forms.split(","),
        where=arguments.where,
        published=arguments.published,
        progress=lambda done, total: print(f"{done}/{total} curves", file=sys.stderr),
    )


def _show(result: Mapping[str, Any]) -> str:
    import pandas as pd

    from vit_scaling.scaling.studies.results import format_table

    lines = []
    for rows in (result["curves"], result["overall"]):
        header, cells = format_table(pd.DataFrame(rows))
        lines += [cli.table(cells, header), ""]
    return "\n".join(lines).rstrip()


if __name__ == "__main__":
    raise SystemExit(main())
