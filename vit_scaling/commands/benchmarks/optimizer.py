"""Measure the optimizers' update alone, against Keras' AdamW and a lower bound."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import math
import statistics
import threading
from collections.abc import Callable, Mapping
from typing import Any

from vit_scaling.checks import check_at_least
from vit_scaling.commands.benchmarks import alternation, records
from vit_scaling.commands.benchmarks.records import Table
from vit_scaling.optimization.update_rules import UPDATE_RULES
from vit_scaling.training.malloc import keep_freed_memory

KERAS = "Keras AdamW"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags: which weights, which optimizers, how often."""
    add = parser.add_argument
    add("--shape", default="B/16", help="the shape whose weights are updated")
    add("--classes", type=int, default=1000, help="width of the classifier")
    add(
        "--optimizers",
        default=",".join(UPDATE_RULES),
        help="this package's optimizers, comma-separated",
    )
    add(
        "--clip_norm",
        type=float,
        default=None,
        help="global norm, ours only",
    )
    add("--graph", action="store_true", help="run TensorFlow's graph without XLA")
    add("--rounds", type=int, default=7, help="measured rounds; the median is reported")
    add(
        "--fresh_memory",
        action="store_true",
        help="return freed memory to the system, which training does not do",
    )


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return seconds per update, and their ratios to the lower bound and to Keras.

    The bound reads the gradients, reads and writes weights and state, each byte once,
    at the rate of a copy measured in the same run. All programs alternate.

    Raises:
        ValueError: An optimizer or shape is unknown, or `rounds` below 1.
    """
    names = [name for name in arguments.optimizers.split(",") if name]
    unknown = sorted(set(names) - set(UPDATE_RULES))
    if unknown:
        raise ValueError(
            f"`--optimizers` must be some of {', '.join(UPDATE_RULES)}; received "
            f"{', '.join(unknown)}."
        )
    check_at_least(1, **{"--rounds": arguments.rounds})
    keeps_memory = not arguments.fresh_memory and keep_freed_memory()
    programs, moved = _make_programs(arguments, names)
    copy, copied = _make_copy()
    samples = alternation.time_alternating(
        {"copy": copy, **programs}, rounds=arguments.rounds
    )
    seconds = {name: statistics.median(values) for name, values in samples.items()}
    bandwidth = copied / seconds["copy"]
    rows = {
        name: {
            "seconds": seconds[name],
            "bound_seconds": moved[name] / bandwidth,
            "over_bound": seconds[name] * bandwidth / moved[name],
            "over_keras_adamw": seconds[name] / seconds[KERAS],
            "bytes_moved": moved[name],
            "spread": alternation.spread(samples[name]),
            "ratio": alternation.ratio_spread(samples[name], samples[KERAS]),
        }
        for name in programs
    }
    return {
        "shape": arguments.shape,
        "xla": not arguments.graph,
        "clip_norm": arguments.clip_norm,
        "keeps_freed_memory": keeps_memory,
        "copy_gigabytes_per_second": bandwidth / 1e9,
        "updates": rows,
    }


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return the seconds of each update, next to the bound and to Keras' AdamW."""
    rows = [
        {
            "update": name,
            **row["spread"],
            "bound": row["bound_seconds"],
            "over_bound": row["over_bound"],
            "over_keras": row["ratio"],
        }
        for name, row in result["updates"].items()
    ]
    columns = {
        "update": "update",
        **records.SECONDS,
        "bound": "bound, s",
        "over_bound": "median over the bound",
        "over_keras": "time over Keras' AdamW's",
    }
    compiler = "xla" if result["xla"] else "graph"
    title = f"Speed of an optimizer's update alone, {result['shape']}, {compiler}"
    name = f"optimizer_update_{compiler}"
    return [records.make_table(name, "Training", title, columns, rows)]


def _make_programs(
    arguments: argparse.Namespace, names: list[str]
) -> tuple[dict[str, Callable[[], Any]], dict[str, int]]:
    """Return the updates by name, and the bytes that each must move at least."""
    import keras

    from vit_scaling.modeling.vit import vit
    from vit_scaling.optimization.optimizer import Optimizer

    optimizers: dict[str, keras.optimizers.Optimizer] = {
        KERAS: keras.optimizers.AdamW(1e-4, weight_decay=0.03)
    }
    for name in names:
        optimizers[name] = Optimizer(
            UPDATE_RULES[name],
            1e-4,
            clip_norm=arguments.clip_norm,
        )
    variables = vit(arguments.shape, classes=arguments.classes).trainable_variables
    gradients = _gradients(variables)
    programs, moved = {}, {}
    for name, optimizer in optimizers.items():
        optimizer.build(variables)
        programs[name] = _update(optimizer, variables, gradients, not arguments.graph)
        state = sum(_bytes(variable) for variable in optimizer.variables)
        moved[name] = 3 * sum(map(_bytes, variables)) + 2 * state
    return programs, moved


def _gradients(variables: list[Any]) -> list[Any]:
    import tensorflow as tf

    seeds = range(len(variables))
    return [
        tf.random.stateless_normal(variable.shape, seed=(0, seed))
        for seed, variable in zip(seeds, variables, strict=True)
    ]


def _update(
    optimizer: Any, variables: list[Any], gradients: list[Any], xla: bool
) -> Callable[[], Any]:
    import tensorflow as tf

    def apply(gradients: list[Any]) -> Any:
        optimizer.apply(gradients, variables)
        return optimizer.iterations + 0

    traced = tf.function(apply, jit_compile=xla, autograph=False)
    return lambda: traced(gradients).numpy()  # Wait for the result.


def _bytes(variable: Any) -> int:
    return math.prod(variable.shape) * (
        2 if variable.dtype in ("bfloat16", "float16") else 4
    )


def _make_copy(megabytes: int = 512) -> tuple[Callable[[], None], int]:
    """Return a copy to call, by as many threads as there are cores, and its bytes."""
    import os

    import numpy as np

    count = os.cpu_count() or 1
    source = [np.ones(megabytes * 2**20 // 8 // count) for _ in range(count)]
    target = [np.zeros_like(part) for part in source]

    def copy() -> None:
        workers = [
            # NumPy releases the interpreter while it copies.
            threading.Thread(target=np.copyto, args=pair)
            for pair in zip(target, source, strict=True)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return copy, 2 * sum(part.nbytes for part in source)
