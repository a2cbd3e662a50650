"""Measure the start of a run on many replicas: create variables, restore them."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vit_scaling.checks import check_at_least
from vit_scaling.commands import cli

G14_VARIABLES = 2672  # Of ViT-G/14 and its Adafactor, whose state is factored.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags: on how many replicas, and of how deep a model."""
    add = parser.add_argument
    add(
        "--replicas",
        type=int,
        nargs="+",
        default=[1, 2, 4, 8, 16, 32],
        help="numbers of virtual devices of the CPU, each in a separate process",
    )
    add("--depth", type=int, default=4, help="blocks of the narrow ViT")


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return the processor time of creating and restoring, by replicas, and its fit.

    The fit is seconds = variables * (per_variable + replicas * per_copy): a variable
    has a copy on every replica. The time to move the values to a device is not in it:
    the variables are small.

    Raises:
        ValueError: There are fewer than two different numbers of replicas.
    """
    numbers = sorted(set(arguments.replicas))
    check_at_least(1, **{"--replicas": numbers[0], "--depth": arguments.depth})
    if len(numbers) < 2:
        raise ValueError(
            f"`--replicas` must have two different numbers for a fit; received "
            f"{arguments.replicas}."
        )
    rows = [_measure_in_process(number, arguments.depth) for number in numbers]
    fits = {
        name: _fit(numbers, [row[f"{name}_seconds"] / row["variables"] for row in rows])
        for name in ("create", "restore")
    }
    return {
        "rows": rows,
        "fits": fits,
        "g14_seconds": {
            str(number): G14_VARIABLES
            * sum(
                fit["per_variable_seconds"] + number * fit["per_copy_seconds"]
                for fit in fits.values()
            )
            for number in (8, 4096)
        },
    }


def show(result: Mapping[str, Any]) -> str:
    """Return the measurements and the fit as tables."""
    rows = [
        [row["replicas"], *(f"{row[f'{n}_seconds']:.2f}" for n in result["fits"])]
        for row in result["rows"]
    ]
    fits = [
        [
            name,
            f"{1e3 * fit['per_variable_seconds']:.3f}",
            f"{1e3 * fit['per_copy_seconds']:.3f}",
            f"{fit['largest_residual']:.0%}",
        ]
        for name, fit in result["fits"].items()
    ]
    header = ["", "ms per variable", "ms per copy", "largest residual"]
    return "\n\n".join(
        [
            cli.table(rows, ["replicas", "create s", "restore s"]),
            cli.table(fits, header),
            "ViT-G/14: "
            + ", ".join(
                f"{seconds:,.0f} s for {number} replicas of a process"
                for number, seconds in result["g14_seconds"].items()
            ),
        ]
    )


def measure(replicas: int, depth: int) -> dict[str, Any]:
    """Measure this process, which must not have started TensorFlow's devices."""
    from vit_scaling.modeling.shapes import ViTShape
    from vit_scaling.modeling.vit import vit
    from vit_scaling.optimization.adafactor import Adafactor
    from vit_scaling.optimization.optimizer import Optimizer
    from vit_scaling.training.checkpoint_variables import (
        assign_values,
        read_variables,
        variables_of,
    )
    from vit_scaling.training.strategy import make_strategy

    shape = ViTShape(patch=16, width=128, depth=depth, mlp_width=256, heads=2)

    def create() -> dict[str, Any]:
        with strategy.scope():
            model = vit(shape, image_size=32, classes=10)
            optimizer = Optimizer(Adafactor(), 1e-3)
            optimizer.build(model.trainable_variables)
        return variables_of(model, optimizer)

    strategy = make_strategy("mirrored", num_virtual_devices=replicas)
    create()  # The first use of each operation takes longer.
    variables, create_seconds = _timed(create)
    values = {key: value.numpy() for key, value in read_variables(variables).items()}
    _, restore_seconds = _timed(lambda: assign_values(variables, values))
    return {
        "replicas": replicas,
        "variables": len(variables),
        "create_seconds": create_seconds,
        "restore_seconds": restore_seconds,
    }


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """Return the function's result and this thread's processor time in seconds."""
    began = time.thread_time()
    result = function()
    return result, time.thread_time() - began


def _measure_in_process(replicas: int, depth: int) -> dict[str, Any]:
    code = (
        f"import json; from {__name__} import measure; "
        f"print(json.dumps(measure({replicas}, {depth})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _fit(replicas: Sequence[int], seconds: Sequence[float]) -> dict[str, float]:
    """Fit a line to the seconds of one variable, by relative least squares."""
    import numpy as np

    x, y = np.asarray(replicas, float), np.asarray(seconds)
    per_copy, per_variable = np.polyfit(x, y, 1, w=1 / y)
    residual = np.abs((per_variable + per_copy * x) / y - 1).max()
    return {
        "per_variable_seconds": float(per_variable),
        "per_copy_seconds": float(per_copy),
        "largest_residual": float(residual),
    }
