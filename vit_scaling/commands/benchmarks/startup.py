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
from vit_scaling.commands.benchmarks import records
from vit_scaling.commands.benchmarks.records import Table

G14_VARIABLES = 2672  # Of ViT-G/14 and its Adafactor, whose state is factored.
G14_REPLICAS = (8, 4096)
_PLAIN_VARIABLES = 1000  # So many are timed that the clock's steps do not matter.


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
    the variables are small. `plain_variable_seconds` is the time of one `tf.Variable`
    without a strategy: a program that creates a copy for each replica takes no less.

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
        "plain_variable_seconds": min(row["plain_variable_seconds"] for row in rows),
        "g14_seconds": {
            str(number): sum(_g14_seconds(fit, number) for fit in fits.values())
            for number in G14_REPLICAS
        },
    }


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return the seconds by replicas, and the fit. There is no peer."""
    fits = result["fits"]
    lines = {
        "fit: ms per variable": [
            1e3 * f["per_variable_seconds"] for f in fits.values()
        ],
        "fit: ms per copy": [1e3 * f["per_copy_seconds"] for f in fits.values()],
        "largest distance from the fit": [
            f"{f['largest_residual']:.0%}" for f in fits.values()
        ],
    }
    plain = result["plain_variable_seconds"]
    lines["a `tf.Variable` without a strategy: ms"] = [1e3 * plain, None]
    for number in G14_REPLICAS:
        lines[f"ViT-G/14 by the fit, {number:,} replicas of a process"] = [
            f"{_g14_seconds(fit, number):,.0f} s" for fit in fits.values()
        ]
    rows = [
        *result["rows"],
        *(
            {"replicas": label, "create_seconds": create, "restore_seconds": restore}
            for label, (create, restore) in lines.items()
        ),
    ]
    columns = {
        "replicas": "replicas",
        "create_seconds": "create, s",
        "restore_seconds": "restore, s",
    }
    title = "Start on many replicas"
    return [records.make_table("startup", "Training", title, columns, rows)]


def show(result: Mapping[str, Any]) -> str:
    """Return the table and the sums of its last rows."""
    sums = (
        f"{seconds:,.0f} s for {number} replicas of a process"
        for number, seconds in result["g14_seconds"].items()
    )
    return f"{records.show(tables(result))}\n\nViT-G/14: {', '.join(sums)}"


def _g14_seconds(fit: Mapping[str, float], replicas: int) -> float:
    per_variable = fit["per_variable_seconds"] + replicas * fit["per_copy_seconds"]
    return G14_VARIABLES * per_variable


def measure(replicas: int, depth: int) -> dict[str, Any]:
    """Measure this process, which must not have started TensorFlow's devices."""
    import tensorflow as tf

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
    value = tf.zeros([])
    tf.Variable(value)  # The first takes longer.
    _, plain_seconds = _timed(
        lambda: [tf.Variable(value) for _ in range(_PLAIN_VARIABLES)]
    )
    return {
        "replicas": replicas,
        "variables": len(variables),
        "create_seconds": create_seconds,
        "restore_seconds": restore_seconds,
        "plain_variable_seconds": plain_seconds / _PLAIN_VARIABLES,
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
