"""Lion with schedule and weight decay, against the paper's Algorithm 2 in float64."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import tensorflow as tf

from tests.optimization.cases import (
    gradients_for,
    relative_error,
    state_of,
    traced_apply,
    variable_at,
    weights_for,
)
from tests.oracles.lion import Lion as LionOracle
from vit_scaling.optimization.learning_rate_schedules import Linear
from vit_scaling.optimization.lion import Lion
from vit_scaling.optimization.optimizer import Optimizer

RATE = Linear(1e-4, total_steps=25, warmup_steps=5)
SHAPES = ((), (33,), (4, 5), (40, 31), (4, 40, 36), (4, 4, 3, 40))


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_lion_equals_the_papers_algorithm(jit_compile):
    """In float64: a rounding error in float32 can change the sign of a tiny sum."""
    shapes = SHAPES[:3] if jit_compile else SHAPES
    variables = [
        variable_at(f"weight_{i}/kernel", weights_for(shape))
        for i, shape in enumerate(shapes)
    ]
    rule = Lion(momentum_dtype="float64")
    optimizer = Optimizer(rule, RATE, weight_decay=((".*", 0.3),))
    optimizer.build(variables)
    apply = traced_apply(optimizer, variables, jit_compile=jit_compile)
    oracles = [LionOracle(shape) for shape in shapes]
    weights = [weights_for(shape) for shape in shapes]
    for step, gradients in enumerate(zip(*map(gradients_for, shapes), strict=True)):
        apply([tf.constant(g, tf.float64) for g in gradients])
        for i, gradient in enumerate(gradients):
            update = oracles[i].direction(gradient) + 0.3 * weights[i]
            weights[i] = weights[i] - RATE.at(step) * update
    for variable, oracle, expected in zip(variables, oracles, weights, strict=True):
        assert relative_error(variable.numpy(), expected) < 1e-9, variable.path
        m = state_of(optimizer, variable)["first_moment"]
        assert relative_error(m, oracle.m) < 1e-12, variable.path


def test_every_entry_moves_by_the_learning_rate():
    variable = variable_at("kernel", np.zeros(3, np.float32))
    optimizer = Optimizer(Lion(), 0.5)
    optimizer.apply([tf.constant([1e-20, -3.0, 0.0])], [variable])
    np.testing.assert_array_equal(variable.numpy(), [-0.5, 0.5, 0.0])


def test_a_bfloat16_momentum_is_stored_rounded():
    variable = variable_at("kernel", np.zeros(1, np.float32))
    optimizer = Optimizer(Lion(momentum_dtype="bfloat16"), 1e-3)
    optimizer.apply([tf.constant([1.0])], [variable])
    m = state_of(optimizer, variable)["first_moment"]
    assert m.dtype == tf.bfloat16.as_numpy_dtype
    np.testing.assert_array_equal(m, tf.cast([0.01], tf.bfloat16).numpy())
