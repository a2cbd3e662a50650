"""Check a set of TFRecords against its manifest, record by record."""
# SPDX-License-Identifier: Apache-2.0

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 only if nothing is wrong."""
    made = cli.make_parser(__doc__ or "")
    made.add_argument(
        "--pattern", required=True, help="a manifest, or a glob of shards without one"
    )
    made.add_argument("--classes", type=int, help="default: as classes.txt has")
    made.add_argument("--max_pixels", type=int, default=100_000_000)
    made.add_argument(
        "--no_decode", action="store_true", help="checksums and examples only"
    )
    made.add_argument("--max_faults", type=int, default=100, help="name so many")
    cli.add_feature_flags(made)
    found: dict[str, Any] = {}

    def verify(arguments: argparse.Namespace) -> Mapping[str, Any]:
        from vit_scaling.data.writing import verification

        found.update(
            verification.verify(
                arguments.pattern,
                classes=arguments.classes,
                max_pixels=arguments.max_pixels,
                decode=not arguments.no_decode,
                max_faults=arguments.max_faults,
                features=cli.features_from_flags(arguments),
            )
        )
        return found

    code = cli.run(made, argv, verify, _show)
    return code or int(bool(found.get("fault_count")))


def _show(result: Mapping[str, Any]) -> str:
    lines = [f"{result['records']} records in {result['shards']} shards checked."]
    if result["fault_count"]:
        lines.append(f"{result['fault_count']} faults:")
        lines += [f"  {fault}" for fault in result["faults"]]
    else:
        lines.append("No fault.")
    return "\n".join(lines)
