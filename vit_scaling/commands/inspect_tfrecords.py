"""Show a set of TFRecords: counts, sizes, classes, duplicates, contact sheets."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = cli.make_parser(__doc__ or "")
    add = parser.add_argument
    add("--pattern", required=True, help="a manifest or a glob of shards")
    add("--output_dir", help="write index.html, contact.png and augmented.png here")
    add("--images", type=int, default=32, help="images on a contact sheet")
    add("--image_size", type=int, default=96, help="their size on a contact sheet")
    add("--seed", type=int, default=0, help="of the random choice of records")
    add("--sample", type=int, default=10_000, help="number of records to read")
    cli.add_feature_flags(parser.add_argument)
    return cli.run(parser, argv, _inspect, _format)


def _inspect(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling.data.tfrecords import TFRecords
    from vit_scaling.data.writing import inspection

    source = TFRecords(arguments.pattern, cli.features_from_flags(arguments))
    result = inspection.compute_statistics(
        source, sample=arguments.sample, seed=arguments.seed
    )
    if arguments.output_dir:
        sheets = inspection.write_sheets(
            source,
            **cli.select_flags(arguments, "output_dir", "images", "image_size", "seed"),
        )
        page = os.path.join(arguments.output_dir, "index.html")
        inspection.write_page(page, result, sheets)
        result["sheets"] = [page, *sheets]
    return result


def _format(result: Mapping[str, Any]) -> str:
    lines = [
        f"{result['records']} records in {result['shards']} shards, "
        f"{result['bytes'] / 2**20:.1f} MiB; {result['sampled']} read.",
        f"labels per image: {result['labels_per_image']}",
        f"formats: {result['formats']}",
        f"exact copies of an earlier image: {result['duplicates']}",
        cli.table(
            [[name, *row.values()] for name, row in result["sizes"].items()],
            ["", "min", "median", "max"],
        ),
    ]
    lines += [f"unusable: {text}" for text in result["unusable"][:20]]
    counts = result["class_counts"]
    largest = max(counts.values(), default=1)
    shown = list(counts.items())[:40]
    rows = [[name, count, "#" * (40 * count // largest)] for name, count in shown]
    lines.append(cli.table(rows, ["class", "images", ""]))
    if len(counts) > len(shown):
        lines.append(f"… and {len(counts) - len(shown)} more classes (--json has all)")
    return "\n".join([*lines, *result.get("sheets", [])])


if __name__ == "__main__":
    raise SystemExit(main())
