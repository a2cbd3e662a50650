"""Throughput of the training step and of inference, and its ratio to the GEMM peak."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import math
import os
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from vit_scaling.commands.benchmarks import records, step_runs
from vit_scaling.commands.benchmarks.alternation import (
    add_timing_flags,
    check_positive,
    ratio_spread,
    spread,
    time_alternating,
)
from vit_scaling.commands.benchmarks.records import Table
from vit_scaling.modeling.head_specs import POOLING_HEADS
from vit_scaling.modeling.shapes import shape_named
from vit_scaling.scaling.planning.flops import flops
from vit_scaling.training.malloc import keep_freed_memory

# (rows, inner, columns) of the matrix products that measure the peak: one of the MLP of
# S/16 at batch 16, its transpose, and a large square.
GEMM_SIZES = ((3136, 384, 1536), (3136, 1536, 384), (2048, 2048, 2048))
REPORTED = ("shape", "head", "image_size", "batch_size", "dtype", "jit_compile")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the model, the measurement and its repetitions."""
    add = parser.add_argument
    add("--shape", default="S/16", help="a shape's name")
    add("--head", default="map", choices=POOLING_HEADS, help="pooling")
    add("--image_size", type=int, default=224, help="side of the images, pixels")
    add("--classes", type=int, default=1000, help="width of the classifier")
    add("--batch_size", type=int, default=16, help="images per step")
    add("--dtype", default="float32", help="float32 or mixed_bfloat16")
    add("--jit_compile", action="store_true", help="compile both programs by XLA")
    add("--rematerialize", default="none", help="none, all, attention, mlp or every_N")
    add("--steps", type=int, default=8, help="measured steps; the median is reported")
    add("--warmup_steps", type=int, default=2, help="steps that are not measured")
    add(
        "--fresh_memory",
        action="store_true",
        help="return freed memory to the system, which training does not do",
    )
    add(
        "--measure",
        default="program",
        choices=("program", *step_runs.COMPARISONS),
        help="the step alone, or the relative cost of the strategy, of the steps per "
        "loop, or of checkpoints every 50 steps; the step next to timm's; the time to "
        "the first step, of this version and another, or of 48 and 12 blocks",
    )
    add_timing_flags(add, rounds=5)
    add(
        "--against",
        metavar="FOLDER",
        help="folder of another version, for --measure=first_step",
    )
    add(
        "--torch_python",
        metavar=records.PYTHON,
        default=os.environ.get("VIT_SCALING_TORCH_PYTHON"),
        help="interpreter that has torch and timm, for --measure=peers",
    )


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return images per second, and FLOPs per second as a fraction of the GEMM peak.

    With `--measure` it returns the result of `step_runs.run`. The programs alternate,
    so that changes of the machine's clock or load affect all of them. FLOPs are the
    model's own (`scaling.planning.flops`): rematerialised operations count once.
    """
    check_positive(arguments, ("batch_size", "steps", "classes", "rounds"))
    if arguments.measure != "program":
        return step_runs.run(arguments)
    keeps_memory = not arguments.fresh_memory and keep_freed_memory()
    counted = flops(
        shape_named(arguments.shape),
        head=arguments.head,
        image_size=arguments.image_size,
        classes=arguments.classes,
    )
    train, infer = make_programs(arguments)
    programs = {"training": train, "inference": infer}
    gemms = {str(sizes): _make_gemm(*sizes) for sizes in GEMM_SIZES}
    samples = time_alternating(
        {**gemms, **programs},
        rounds=arguments.steps,
        warmup_rounds=arguments.warmup_steps,
    )
    seconds = {name: statistics.median(values) for name, values in samples.items()}
    peak = max(2.0 * math.prod(sizes) / seconds[str(sizes)] for sizes in GEMM_SIZES)
    result = {name: vars(arguments)[name] for name in REPORTED}
    result["keeps_freed_memory"] = keeps_memory
    result["gemm_peak_gflops_per_second"] = peak / 1e9
    # Of each round: the seconds in which the fastest product does one operation.
    fastest = [
        min(
            taken / math.prod(sizes) / 2
            for sizes, taken in zip(GEMM_SIZES, one, strict=True)
        )
        for one in zip(*(samples[str(sizes)] for sizes in GEMM_SIZES), strict=True)
    ]
    for name, flops_per_image in (
        ("training", counted.training),
        ("inference", counted.forward),
    ):
        rate = arguments.batch_size / seconds[name]
        result[f"{name}_seconds_per_step"] = seconds[name]
        result[f"{name}_images_per_second"] = rate
        result[f"{name}_share_of_gemm_peak"] = rate * flops_per_image / peak
        operations = arguments.batch_size * flops_per_image
        result[name] = {
            "seconds": spread(samples[name]),
            "share_of_gemm_peak": ratio_spread(
                [operations * taken for taken in fastest], samples[name]
            ),
        }
    return result


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return the seconds of both programs, next to the matrix products' rate."""
    if "measure" in result:
        return [step_runs.make_table(result)]
    rows = [
        {
            "program": name,
            **result[name]["seconds"],
            "rate": result[f"{name}_images_per_second"],
            "share": result[name]["share_of_gemm_peak"],
        }
        for name in ("training", "inference")
    ]
    columns = {
        "program": "step",
        **records.SECONDS,
        "rate": "images/s",
        "share": "ratio to the peak of matrix products",
    }
    title = f"Steps of {result['shape']} next to matrix products"
    return [records.make_table("training_step", "Training", title, columns, rows)]


def _make_gemm(rows: int, inner: int, columns: int) -> Callable[[], Any]:
    """Return a function that multiplies two float32 matrices."""
    import tensorflow as tf

    left = tf.random.stateless_normal((rows, inner), (0, 0))
    right = tf.random.stateless_normal((inner, columns), (0, 1))
    product = tf.function(lambda: tf.matmul(left, right))
    return lambda: product().numpy()


def make_programs(
    arguments: argparse.Namespace, *, trains: bool = True
) -> tuple[Callable, Callable]:
    """Return a training step (sigmoid loss, AdamW) and an inference step.

    Args:
        arguments: The flags of the model.
        trains: Whether the training step gets its optimizer, which takes memory.
    """
    import tensorflow as tf

    from vit_scaling.modeling.vit import vit
    from vit_scaling.optimization.adam import Adam
    from vit_scaling.optimization.optimizer import Optimizer
    from vit_scaling.training.losses import sigmoid_cross_entropy
    from vit_scaling.training.step import make_train_step

    size = arguments.image_size
    model = vit(
        arguments.shape,
        arguments.head,
        image_size=size,
        classes=arguments.classes,
        dtype=arguments.dtype,
        rematerialize=arguments.rematerialize,
    )
    optimizer = Optimizer(Adam(), 1e-3, weight_decay=((".*kernel", 1e-4),))
    if trains:
        optimizer.build(model.trainable_variables)
    shape = (arguments.batch_size, size, size, 3)
    images = tf.Variable(tf.random.stateless_uniform(shape, (0, 0), -1.0, 1.0))
    labels = tf.Variable(tf.zeros((arguments.batch_size, arguments.classes)))
    step = make_train_step(
        model, optimizer, sigmoid_cross_entropy, compile_step=arguments.jit_compile
    )

    @tf.function(autograph=False)
    def train() -> tf.Tensor:
        batch = {"images": images, "labels": labels}
        return step({name: tf.convert_to_tensor(v) for name, v in batch.items()})[
            "loss"
        ]

    @tf.function(jit_compile=arguments.jit_compile)
    def infer() -> tf.Tensor:
        return model(tf.convert_to_tensor(images), training=False)

    return lambda: train().numpy(), lambda: infer().numpy()
