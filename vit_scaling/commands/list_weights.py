"""List published weights: name, shape, licence, accuracy, and where they are."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.applications import published
from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = cli.make_parser(__doc__ or "")
    add = parser.add_argument
    add(
        "pattern",
        nargs="?",
        default="*",
        help="shell pattern of names, such as '*b16*'",
    )
    add(
        "--sources",
        action="store_true",
        help="show addresses, and the file, repository and revision of each fact",
    )
    return cli.run(parser, argv, _list, _show)


def _list(arguments: argparse.Namespace) -> Mapping[str, Any]:
    found = published.list_weights(arguments.pattern)
    if not found:
        raise ValueError(
            f"No published weights match {arguments.pattern!r}."
            f"{published.suggest_name(arguments.pattern)}"
        )
    return {
        "sources": arguments.sources,
        "weights": [dataclasses.asdict(weights) for weights in found],
    }


def _show(result: Mapping[str, Any]) -> str:
    columns = {
        "name": "name",
        "shape": "shape",
        "image_size": "pixels",
        "classes": "classes",
        "top1": "top-1 %",
        "evaluation": "measured as",
        "licence": "licence",
    }
    rows = [[str(row[name]) for name in columns] for row in result["weights"]]
    lines = [cli.table(rows, list(columns.values()))]
    if result["sources"]:
        for row in result["weights"]:
            lines += ["", f"{row['name']}: {row['address']}"]
            lines += [
                f"  {fact}: {row[f'{fact}_source']}"
                for fact in ("address", "licence", "top1")
            ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
