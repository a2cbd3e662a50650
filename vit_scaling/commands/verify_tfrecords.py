"""Check a set of TFRecords against its manifest, record by record."""
# SPDX-License-Identifier: Apache-2.0

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 only if there is no fault."""
    parser = cli.make_parser(__doc__ or "")
    add = parser.add_argument
    add("--pattern", required=True, help="a manifest, or a glob of shards without one")
    add("--classes", type=int, help="default: the number of lines of classes.txt")
    add("--max_pixels", type=int, default=100_000_000, help="larger images are faults")
    add("--no_decode", action="store_true", help="checksums and examples only")
    add("--max_faults", type=int, default=100, help="number of faults to describe")
    cli.add_feature_flags(parser.add_argument)
    result: dict[str, Any] = {}

    def verify(arguments: argparse.Namespace) -> Mapping[str, Any]:
        from vit_scaling.data.writing import verification

        result.update(
            verification.verify(
                arguments.pattern,
                decode=not arguments.no_decode,
                features=cli.features_from_flags(arguments),
                **cli.select_flags(arguments, "classes", "max_pixels", "max_faults"),
            )
        )
        return result

    code = cli.run(parser, argv, verify, _format)
    return code or int(bool(result.get("fault_count")))


def _format(result: Mapping[str, Any]) -> str:
    lines = [f"{result['records']} records in {result['shards']} shards checked."]
    if result["fault_count"]:
        lines.append(f"{result['fault_count']} faults:")
        lines += [f"  {fault}" for fault in result["faults"]]
    else:
        lines.append("No fault.")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
