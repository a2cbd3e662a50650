"""Build the index files of TFRecords that other programs wrote; continues if killed.

On several machines that see the same folder, give each its number:
--host=0 --hosts=8, --host=1 --hosts=8, and so on.
"""
# SPDX-License-Identifier: Apache-2.0

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = cli.make_parser(__doc__ or "")
    add = parser.add_argument
    add("--pattern", required=True, help="a manifest or a glob of shards")
    add(
        "--keys",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also hash the keys, by which subsets are chosen; reads all bytes",
    )
    add("--host", type=int, default=0, help="number of this machine, from 0")
    add("--hosts", type=int, default=1, help="machines that build the index together")
    add("--workers", type=int, help="processes; default: one per core")
    add(
        "--fractions",
        type=float,
        nargs="*",
        default=[],
        help="count the images of these subsets, so that training need not",
    )
    cli.add_feature_flags(parser.add_argument)
    return cli.run(parser, argv, _build, _format)


def _build(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling.data.tfrecords import TFRecords
    from vit_scaling.data.writing import indexing

    source = TFRecords(arguments.pattern, cli.features_from_flags(arguments))
    return indexing.build_index(
        source,
        progress=cli.make_progress_printer(unit="MiB"),
        **cli.select_flags(arguments, "keys", "host", "hosts", "workers", "fractions"),
    )


def _format(result: Mapping[str, Any]) -> str:
    lines = [
        f"{result['records']} records in {result['shards']} shards, "
        f"{result['bytes'] / 2**20:.1f} MiB; index files of {result['built']} built."
    ]
    for fraction, images in result.get("subsets", {}).items():
        lines.append(f"fraction {fraction}: {images} images")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
