"""Compile a run's training step for TPUs or GPUs: does it fit, and how fast."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_scaling.checks import check_at_least, check_power_of_two
from vit_scaling.commands import cli
from vit_scaling.commands.planned_run import NOT_READ


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code, 0 also if the step does not fit."""
    parser = cli.make_parser(__doc__ or "")
    add = parser.add_argument_group("run").add_argument
    add("--gin_file", action="append", required=True, help="as for training; repeat")
    add("--gin_param", action="append", default=[], help="a binding; repeat")
    add = parser.add_argument_group("devices").add_argument
    add(
        "--topology",
        default="v3:2x2",
        help="a slice of TPUs: v3:2x2, v3:4x4, v4:2x2x1, v5e:4x4 …; or GPUs: h100, "
        "h200, a100_80gb, a100_40gb, l4, rtx_4090, each also with x2 to x8",
    )
    batch = parser.add_mutually_exclusive_group(required=True)
    batch.add_argument("--per_core_batch", type=int, help="images of one replica")
    batch.add_argument(
        "--find_batch", action="store_true", help="find the largest that fits"
    )
    add("--batch_multiple", type=int, default=8, help="step of --find_batch")
    add = parser.add_argument_group("compiler").add_argument
    add("--tpu_python", help="a Python with jax and libtpu; default: one is created")
    add("--gpu_python", help="a Python with jax[cuda12]; default: one is created")
    add("--cache_dir", help="folder of results; default: in ~/.cache; '' for no cache")
    add("--program", help="write the program (StableHLO) to this file")
    add("--optimized", help="write the compiled program (HLO) to this file")
    return cli.run(parser, argv, _run, _show)


def _run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    from vit_scaling.preflight import environment
    from vit_scaling.preflight.compiler import Compiler
    from vit_scaling.preflight.targets import find_target

    # Everything is checked before the step is lowered, which may take minutes.
    target = find_target(arguments.topology)
    check_power_of_two(batch_multiple=arguments.batch_multiple)
    if arguments.per_core_batch is not None:
        check_at_least(1, per_core_batch=arguments.per_core_batch)
    path = getattr(arguments, target.toolchain.flag)
    python = environment.find_python(target.toolchain, path)
    cache_dir: Path | None = environment.cache_root() / "results"
    if arguments.cache_dir is not None:
        cache_dir = Path(arguments.cache_dir) if arguments.cache_dir else None
    optimized = Path(arguments.optimized) if arguments.optimized else None
    compiler = Compiler(
        target.toolchain, python, cache_dir, target.options, optimized=optimized
    )
    replicas = compiler.count_replicas(target.topology)

    from vit_scaling import configurables
    from vit_scaling.preflight.lowering import StepLowering
    from vit_scaling.preflight.run import Preflight

    batch = arguments.per_core_batch or arguments.batch_multiple
    configurables.parse(
        arguments.gin_file, arguments.gin_param, {**NOT_READ, "BATCH_SIZE": batch}
    )
    preflight = Preflight(
        StepLowering(configurables.Experiment()),
        compiler,
        target,
        replicas,
        program_path=Path(arguments.program) if arguments.program else None,
        log=lambda line: print(line, file=sys.stderr),
    )
    if arguments.find_batch:
        return preflight.find_largest_batch(arguments.batch_multiple)
    return preflight.check_batch(arguments.per_core_batch)


def _show(result: Mapping[str, Any]) -> str:
    from vit_scaling.preflight.report import format_report

    return format_report(result)


if __name__ == "__main__":
    sys.exit(main())
