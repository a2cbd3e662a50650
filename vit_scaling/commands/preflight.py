"""Compile a run's training step with the real TPU compiler: does it fit, how fast."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_scaling.commands import cli

# What a run must be told and the step's program does not depend on.
_NOT_READ = {"TRAIN_PATTERN": "not read", "EVAL_PATTERN": "not read"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code, 0 also where the step does not fit."""
    made = cli.make_parser(__doc__ or "")
    add = made.add_argument
    add("--gin_file", action="append", required=True, help="as for training; repeat")
    add("--gin_param", action="append", default=[], help="a binding; repeat")
    add("--topology", default="v3:2x2", help="v3:2x2, v4:2x2x1, v5e:2x2, v6e:2x2 …")
    batch = made.add_mutually_exclusive_group(required=True)
    batch.add_argument("--per_core_batch", type=int, help="images of one replica")
    batch.add_argument(
        "--find_batch", action="store_true", help="find the largest that fits"
    )
    add("--batch_multiple", type=int, default=8, help="step of --find_batch")
    add("--tpu_python", help="a Python with jax and libtpu; default: one is made")
    add("--cache_dir", help="folder of answers; default: in ~/.cache; '' keeps none")
    add("--program", help="write the program (StableHLO) to this file")
    add("--optimized", help="write the compiled program (HLO) to this file")
    return cli.run(made, argv, _preflight, _show)


def _preflight(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling.preflight import environment, report, search
    from vit_scaling.preflight.compiler import TpuCompiler

    # All that can be refused is, before the step is lowered: that may take minutes.
    report.device_of(arguments.topology)
    search.check_multiple(arguments.batch_multiple, "batch_multiple")
    if arguments.per_core_batch is not None and arguments.per_core_batch < 1:
        raise ValueError(
            "`per_core_batch` must be at least 1 image; received "
            f"{arguments.per_core_batch}."
        )
    python = environment.tpu_python(arguments.tpu_python)
    cache = environment.cache_root() / "answers"
    if arguments.cache_dir is not None:
        cache = Path(arguments.cache_dir)
    compiler = TpuCompiler(
        python,
        None if arguments.cache_dir == "" else cache,
        optimized=Path(arguments.optimized) if arguments.optimized else None,
    )
    compiler.check_topology(arguments.topology)

    from vit_scaling import configurables
    from vit_scaling.preflight.lowering import StepLowering
    from vit_scaling.preflight.run import Preflight

    batch = arguments.per_core_batch or arguments.batch_multiple
    configurables.parse(
        arguments.gin_file, arguments.gin_param, {**_NOT_READ, "BATCH_SIZE": batch}
    )
    preflight = Preflight(
        StepLowering(configurables.Experiment()),
        compiler,
        arguments.topology,
        keep_program=Path(arguments.program) if arguments.program else None,
        say=lambda line: print(line, file=sys.stderr),
    )
    if arguments.find_batch:
        return preflight.largest(arguments.batch_multiple)
    return preflight.at(arguments.per_core_batch)


def _show(result: Mapping[str, Any]) -> str:
    from vit_scaling.preflight.report import as_text

    return as_text(result)


if __name__ == "__main__":
    sys.exit(main())
