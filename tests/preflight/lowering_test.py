"""A run's step is lowered: complete, deterministic, without memory for variables."""
# SPDX-License-Identifier: Apache-2.0

import re

import gin
import pytest
import tensorflow as tf

from tests.preflight.programs import count_operations
from vit_scaling import configurables
from vit_scaling.modeling.vit import vit
from vit_scaling.optimization.adam import Adam
from vit_scaling.optimization.optimizer import Optimizer
from vit_scaling.preflight import program
from vit_scaling.preflight.lowering import (
    StepLowering,
    lower_step,
    unfilled_variables,
)
from vit_scaling.preflight.program import compute_fingerprint

SMALL = [
    *("SHAPE = 'mu/16'", "IMAGE_SIZE = 32", "CLASSES = 10", "TOTAL_STEPS = 100_000"),
    *("TRAIN_PATTERN = 'none'", "EVAL_PATTERN = 'none'"),
]


def lowering(*bindings: str) -> StepLowering:
    gin.clear_config()
    configurables.parse(["experiments/vit_ti16.gin"], [*SMALL, *bindings])
    return StepLowering(configurables.Experiment())


@pytest.fixture(scope="module")
def text() -> str:
    return lowering().lower(4)


def signature(text: str) -> tuple[list[str], list[str]]:
    line = next(line for line in text.splitlines() if "func.func @main(" in line)
    arguments, results = line.split(" -> ")
    return (
        re.findall(r"tensor<([^>]*)>", arguments),
        re.findall(r"tensor<([^>]*)>", results),
    )


def test_an_indivisible_batch_is_distinguished_from_other_errors():
    with pytest.raises(program.IndivisibleBatchError) as raised:
        lowering("MICRO_BATCHES = 16").lower(8)
    assert raised.value.micro_batches == 16


def test_the_step_is_stablehlo_of_static_shapes(text):
    names = count_operations(text)
    assert {name.split(".")[0] for name in names} <= {"stablehlo", "func", "mhlo"}
    assert "mhlo.copy" not in names
    assert names["stablehlo.dot_general"] > 20
    assert "tensor<?" not in text


def test_the_step_takes_the_batch_and_updates_every_variable(text):
    arguments, results = signature(text)
    made = lowering()
    state = [*made.model.variables, *made.optimizer.variables]
    assert arguments[:2] == ["4x32x32x3xf32", "4x10xf32"]
    # All but the learning rate, which the schedule gives, is read or written; weights
    # and state come out again, after the accuracy, the loss and the penalty.
    assert len(arguments) - 2 >= len(state) - 1
    assert sorted(results[3:]) == sorted(arguments[2:])
    assert text.count('alias = {kind = "may_alias"') == len(results) - 3


def test_momentum_is_in_bfloat16_and_weights_are_not(text):
    arguments, _ = signature(text)
    made = lowering()
    weights = len(made.model.trainable_variables)
    assert sum(a.endswith("bf16") for a in arguments) == weights
    assert sum(a.endswith("f32") for a in arguments) > 2 * weights


def test_the_same_run_gives_the_same_fingerprint(text):
    made = lowering()
    assert compute_fingerprint(made.lower(4)) == compute_fingerprint(text)
    assert compute_fingerprint(made.lower(8)) != compute_fingerprint(text)
    assert made.parameters == sum(
        tf.size(weight).numpy() for weight in made.model.trainable_variables
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_gradient_is_exchanged_once_in_the_dtype_of_the_run(dtype):
    made = lowering(f"GRADIENT_DTYPE = '{dtype}'")
    text = made.lower(4, replicas=8)
    count = len(made.model.trainable_variables)
    assert count_operations(text)["stablehlo.all_reduce"] == count
    assert text.count("replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]>") == count
    pattern = r"stablehlo\.all_reduce.*?\}\).*? : \(tensor<([^>]*)>\)"
    short = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    shapes = ["x".join(map(str, v.shape)) for v in made.model.trainable_variables]
    assert sorted(re.findall(pattern, text, re.S)) == sorted(
        f"{shape}x{short}" for shape in shapes
    )


def test_one_replica_exchanges_nothing(text):
    assert "all_reduce" not in text


def test_another_optimizer_clip_or_decay_is_another_program(text):
    for binding in ("CLIP_NORM = None", "BODY_WEIGHT_DECAY = 0.5"):
        changed = lowering(binding).lower(4)
        assert compute_fingerprint(changed) != compute_fingerprint(text), binding


def test_lengths_in_epochs_need_no_data():
    made = lowering(
        "TOTAL_STEPS = ('epochs', 90)",
        "WARMUP_STEPS = ('epochs', 5)",
        "COOLDOWN_STEPS = ('epochs', 5)",
    )
    assert "stablehlo" in made.lower(2)


def test_a_large_model_is_built_without_memory():
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    before = resident()
    with unfilled_variables():
        model = vit("L/16", "gap", classes=1000)
        optimizer = Optimizer(Adam(), 1e-3)
        optimizer.build(model.trainable_variables)
    stated = 3 * 4 * model.count_params()
    assert stated > 3.6e9
    assert resident() - before < stated / 4


def test_unfilled_variables_have_shape_and_dtype_of_filled_ones():
    def specs() -> list:
        model = vit("mu/16", image_size=32, classes=3)
        optimizer = Optimizer(
            Adam(first_moment_dtype="bfloat16"), 1e-3, average_decay=0.9
        )
        optimizer.build(model.trainable_variables)
        variables = [*model.variables, *optimizer.variables]
        return [(v.path.split("/", 1)[1:], tuple(v.shape), v.dtype) for v in variables]

    filled = specs()
    with unfilled_variables():
        assert specs() == filled


def test_operations_without_an_xla_kernel_are_named():
    spec = tf.TensorSpec([2, 3])

    def step(batch):
        return tf.strings.length(tf.strings.as_string(batch["images"]))

    with pytest.raises(
        program.UnsupportedError, match="cannot run: AsString"
    ) as caught:
        lower_step(step, spec, spec)
    assert caught.value.operations == ["AsString"]


def test_other_errors_are_not_reported_as_a_missing_kernel():
    spec = tf.TensorSpec([2, 3])
    with pytest.raises(ValueError, match=r"Dimensions must be equal|incompatible"):
        lower_step(
            lambda batch: tf.matmul(batch["images"], batch["labels"]), spec, spec
        )


def test_a_batch_must_be_positive():
    with pytest.raises(ValueError, match="`per_core_batch` must be at least 1"):
        lowering().lower(0)
