"""Measure speed and memory: `benchmark.py step | pipeline | writing | …`."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import datetime
import functools
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.commands import cli, installation
from vit_scaling.commands.benchmarks import records

BENCHMARKS = (
    *("step", "optimizer", "pipeline", "scale", "writing", "fewshot", "fit"),
    *("inference", "predict", "coverage", "accelerator", "parity", "checkpoint"),
    *("startup", "deduplication"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark named by the first argument; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    known = ", ".join(BENCHMARKS)
    if not arguments or arguments[0] not in BENCHMARKS:
        asked_for_help = arguments[:1] in (["-h"], ["--help"])
        text = (
            f"usage: benchmark.py BENCHMARK [flags]; a BENCHMARK is one of {known}; "
            "benchmark.py BENCHMARK --help lists its flags"
        )
        print(text, file=sys.stdout if asked_for_help else sys.stderr)
        return 0 if asked_for_help else 2
    name = arguments[0]
    module = importlib.import_module(f"vit_scaling.commands.benchmarks.{name}")
    parser = cli.make_parser(module.__doc__ or "")
    parser.prog = f"{parser.prog} {name}"
    parser.add_argument(
        "--record",
        metavar="FOLDER",
        help="also write each table there as JSON, a record of the results page",
    )
    module.add_arguments(parser)

    def show(result: Mapping[str, Any]) -> str:
        return records.show(module.tables(result))

    return cli.run(
        parser,
        arguments[1:],
        functools.partial(_run, module, name, parser),
        getattr(module, "show", show),
    )


def _run(
    module: Any, name: str, parser: argparse.ArgumentParser, flags: argparse.Namespace
) -> Mapping[str, Any]:
    """Return a benchmark's result; write its records if the flags ask for them."""
    if flags.record is None:
        return module.run(flags)
    records.make_folder(flags.record)
    versions = records.versions_text(module, flags)  # Fails early without the peer.
    result = module.run(flags)
    origin = {
        "command": records.command_text(name, parser, flags),
        "date": datetime.date.today().isoformat(),
        # After the run, because it starts TensorFlow's devices.
        "machine": installation.describe_machine(),
        "versions": versions,
    }
    records.write_records(flags.record, module.tables(result), origin)
    return result


if __name__ == "__main__":
    sys.exit(main())
