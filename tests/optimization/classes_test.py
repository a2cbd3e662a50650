"""The optimizer classes in float32 against the float64 oracles, over 20 steps."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import tensorflow as tf

from tests.optimization.cases import (
    SHAPES,
    bfloat16_step,
    gradients_for,
    relative_error,
    state_of,
    traced_apply,
    variables_for,
    weights_for,
)
from tests.oracles.adafactor import Adafactor as AdafactorOracle
from tests.oracles.adam import Adam as AdamOracle
from tests.oracles.momentum import Momentum as MomentumOracle
from vit_scaling.optimization.adafactor import Adafactor
from vit_scaling.optimization.adam import Adam
from vit_scaling.optimization.averaging import AverageDecay
from vit_scaling.optimization.learning_rate_schedules import Linear
from vit_scaling.optimization.lion import Lion
from vit_scaling.optimization.momentum import Momentum
from vit_scaling.optimization.optimizer import Optimizer
from vit_scaling.optimization.reductions import mean_along, sum_of_squares

RATE = Linear(1e-3, total_steps=25, warmup_steps=5)
DECAY = ((r".*_0\d/kernel", 3.0), (r".*/kernel", 0.03))

CASES = {
    "adam": (Adam(), AdamOracle, {}),
    "adam_hp": (
        Adam(first_moment_dtype="bfloat16"),
        AdamOracle,
        {"first": "bfloat16"},
    ),
    "adam_bfloat16_moments": (
        Adam(first_moment_dtype="bfloat16", second_moment_dtype="bfloat16"),
        AdamOracle,
        {"first": "bfloat16", "second": "bfloat16"},
    ),
    "adafactor": (Adafactor(), AdafactorOracle, {"first": "bfloat16"}),
    "adafactor_original": (
        Adafactor(
            momentum=None,
            beta2_cap=None,
            clipping_threshold=1.0,
            scale_by_parameters=True,
        ),
        AdafactorOracle,
        {"momentum": None, "cap": None, "clip": 1.0, "scale": True},
    ),
    "momentum": (Momentum(), MomentumOracle, {}),
    "momentum_hp_nesterov": (
        Momentum(momentum_dtype="bfloat16", nesterov=True),
        MomentumOracle,
        {"first": "bfloat16", "nesterov": True},
    ),
}


# XLA compiles for seconds: a few shapes and the options that differ most.
XLA_SHAPES = ((33,), (40, 31), (4, 40, 36))


@pytest.mark.parametrize(
    ("name", "shapes", "jit_compile"),
    [
        *((name, SHAPES, False) for name in CASES),
        ("adam_hp", XLA_SHAPES, True),
        ("adafactor", XLA_SHAPES, True),
        ("momentum_hp_nesterov", XLA_SHAPES, True),
    ],
    ids=lambda value: (
        {False: "graph", True: "xla"}.get(value, value)
        if isinstance(value, str | bool)
        else ""
    ),
)
def test_classes_equal_the_oracle(name, shapes, jit_compile):
    """Clipping, decay, schedule and direction together, in the authors' order."""
    rule, make_oracle, oracle_options = CASES[name]
    variables = variables_for(shapes)
    optimizer = Optimizer(rule, RATE, weight_decay=DECAY, clip_norm=10.0)
    optimizer.build(variables)
    apply = traced_apply(optimizer, variables, jit_compile=jit_compile)
    oracles = [make_oracle(shape, **oracle_options) for shape in shapes]
    weights, peaks = [weights_for(shape) for shape in shapes], {}
    for step, gradients in enumerate(
        zip(*(gradients_for(shape) for shape in shapes), strict=True)
    ):
        apply([tf.constant(g, tf.float32) for g in gradients])
        norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
        clip, rate = 10.0 / max(norm, 10.0), RATE.at(step)
        for i, gradient in enumerate(gradients):
            u = oracles[i].direction(gradient * clip, weights[i])
            strength = 3.0 if i < 10 else 0.03
            weights[i] = weights[i] - rate * (u + strength * weights[i])
            for key, value in oracles[i].state.items():
                peak = peaks.get((variables[i].path, key), 0.0)
                peaks[variables[i].path, key] = np.maximum(peak, np.abs(value))
    different = total = 0
    for variable, oracle, expected in zip(variables, oracles, weights, strict=True):
        assert relative_error(variable.numpy(), expected) < 1e-6, variable.path
        state = state_of(optimizer, variable)
        assert set(state) == set(oracle.state)
        for key, value in oracle.state.items():
            if state[key].dtype == np.float32:
                # Not asked for, but a wrong state would show here first.
                assert relative_error(state[key], value) < 2e-6, (variable.path, key)
                continue
            apart = np.abs(state[key].astype(np.float64) - value)
            step = bfloat16_step(peaks[variable.path, key])
            assert np.all(apart <= step), (variable.path, key)
            different, total = different + np.sum(apart > 0), total + apart.size
    # Of bfloat16 moments at most one stored value in 1,000, by one step: that of the
    # largest value the entry has held, since a difference from then stays when a moment
    # passes through zero.
    assert different * 1000 <= total


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_sums_over_a_large_weight_keep_their_digits(jit_compile):
    """A float32 sum, or product, that adds two million numbers in turn is 1 % off."""
    values = np.random.default_rng(0).normal(size=(768, 3072)).astype(np.float32)
    exact = values.astype(np.float64) ** 2
    compiled = tf.function(
        lambda x: (
            sum_of_squares(x),
            mean_along(tf.square(x), 0),
            mean_along(tf.square(x), 1),
        ),
        jit_compile=jit_compile,
    )
    total, rows, columns = compiled(values)
    assert float(total) == pytest.approx(exact.sum(), rel=1e-6)
    np.testing.assert_allclose(rows, exact.mean(axis=0), rtol=2e-6)
    np.testing.assert_allclose(columns, exact.mean(axis=1), rtol=2e-6)


def test_adam_without_the_papers_changes_is_keras_adam():
    import keras

    shapes = SHAPES[4:9]
    ours, theirs = variables_for(shapes), variables_for(shapes)
    # Keras adds epsilon to the uncorrected root, so it must not matter here.
    optimizer = Optimizer(Adam(epsilon=1e-12), 1e-2)
    reference = keras.optimizers.Adam(1e-2, epsilon=1e-12)
    for step in range(20):
        gradients = [gradients_for(shape)[step] + 1e-3 for shape in shapes]
        gradients = [tf.constant(g, tf.float32) for g in gradients]
        optimizer.apply(gradients, ours)
        reference.apply(gradients, theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert relative_error(one.numpy(), other.numpy()) < 2e-6


def test_momentum_without_bfloat16_is_keras_sgd():
    import keras

    shapes = SHAPES[4:9]
    for nesterov in (False, True):
        ours, theirs = variables_for(shapes), variables_for(shapes)
        optimizer = Optimizer(Momentum(nesterov=nesterov), 1e-2)
        reference = keras.optimizers.SGD(1e-2, momentum=0.9, nesterov=nesterov)
        for step in range(20):
            gradients = [
                tf.constant(gradients_for(shape)[step], tf.float32) for shape in shapes
            ]
            optimizer.apply(gradients, ours)
            reference.apply(gradients, theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert relative_error(one.numpy(), other.numpy()) < 1e-6


def test_the_factored_second_moment_has_two_small_factors():
    variables = variables_for([(64, 4, 96)])
    optimizer = Optimizer(Adafactor(), 1e-3)
    optimizer.build(variables)
    shapes = {
        k: (v.shape, str(v.dtype)) for k, v in state_of(optimizer, variables[0]).items()
    }
    assert shapes == {
        "first_moment": ((64, 4, 96), "bfloat16"),
        "second_moment_row": ((64, 4), "float32"),
        "second_moment_column": ((4, 96), "float32"),
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adam(beta1=1.0), "beta1"),
        (lambda: Adam(beta2=0), "beta2"),
        (lambda: Adam(first_moment_dtype="int8"), "first_moment_dtype"),
        (lambda: Adam(second_moment_dtype="f32"), "second_moment_dtype"),
        (lambda: Adafactor(momentum=1.5), "momentum"),
        (lambda: Adafactor(beta2_cap=1.0), "beta2_cap"),
        (lambda: Adafactor(clipping_threshold=0), "clipping_threshold"),
        (lambda: Adafactor(momentum_dtype="half"), "momentum_dtype"),
        (lambda: Momentum(momentum=1.0), "momentum"),
        (lambda: Momentum(momentum=None, nesterov=True), "nesterov"),
        (lambda: Lion(beta1=1.0), "beta1"),
        (lambda: Lion(momentum_dtype="half"), "momentum_dtype"),
        (lambda: Optimizer(Adam(), 1e-3, clip_norm=0), "clip_norm"),
        (lambda: Optimizer(Adam(), 1e-3, average_decay=1.0), "average_decay"),
        (lambda: AverageDecay(0.9, warmup_steps=-1), "warmup_steps"),
        (
            lambda: Optimizer(Adam(), 1e-3, weight_decay=(("(", 1.0),)),
            "regular expression",
        ),
        (
            lambda: Optimizer(Adam(), 1e-3, weight_decay=(3.0,)),
            "each .a string, a number",
        ),
        (lambda: Optimizer(Adam(), 1e-3, weight_decay=((".*", -1.0),)), "at least 0"),
        (
            lambda: Optimizer(Adam(), 1e-3, weight_decay=((".*", "1"),)),
            "each .a string, a number",
        ),
        (lambda: Optimizer(Adam(), Linear(1.0, total_steps=("epochs", 1))), "in_steps"),
    ],
)
def test_bad_values_are_refused_at_construction(make, message):
    with pytest.raises(ValueError, match=message):
        make()
