"""Measure speed and memory: `benchmark.py step | pipeline | writing | …`."""
# SPDX-License-Identifier: Apache-2.0

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling import io_files
from vit_scaling.commands import cli

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
    module = importlib.import_module(f"vit_scaling.commands.benchmarks.{arguments[0]}")
    parser = cli.make_parser(module.__doc__ or "")
    parser.prog = f"{parser.prog} {arguments[0]}"
    module.add_arguments(parser)
    return cli.run(parser, arguments[1:], module.run, getattr(module, "show", _show))


def _show(result: Mapping[str, Any]) -> str:
    return io_files.json_text(result).rstrip()


if __name__ == "__main__":
    sys.exit(main())
