"""The exchange of gradients between replicas, against float64 sums by NumPy."""
# SPDX-License-Identifier: Apache-2.0

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.optimization.replicas import strategy_of
from vit_scaling.optimization.momentum import Momentum
from vit_scaling.optimization.optimizer import Optimizer
from vit_scaling.optimization.reductions import exchange_gradients

BFLOAT16 = tf.bfloat16.as_numpy_dtype
SHAPES = ((5, 7), (3,))
CLIP, RATE = 0.5, 0.1


def parts_of(replicas, dtype="float32"):
    """Return the gradients of each replica, of different magnitudes."""
    rng = np.random.default_rng(replicas)
    return [
        [(10.0**i * rng.normal(size=s)).astype(dtype) for s in SHAPES]
        for i in range(replicas)
    ]


def run(strategy, function, parts):
    """Run a function of each replica's gradients; return all replicas' results."""

    values = [
        strategy.experimental_distribute_values_from_function(
            lambda context, i=i: tf.constant(parts[context.replica_id_in_sync_group][i])
        )
        for i in range(len(SHAPES))
    ]
    results = tf.function(lambda v: strategy.run(function, args=(v,)))(values)
    return zip(*map(strategy.experimental_local_results, results), strict=True)


@pytest.mark.parametrize("replicas", [2, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_float32_exchange_sums_in_the_gradients_own_dtype(replicas, dtype):
    parts = parts_of(replicas, dtype)
    results = run(
        strategy_of(replicas), lambda g: exchange_gradients(g, "float32"), parts
    )
    for result in results:
        for i, found in enumerate(result):
            assert found.dtype == dtype
            expected = sum(part[i].astype(np.float64) for part in parts)
            np.testing.assert_allclose(found, expected, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("replicas", [2, 4])
def test_a_bfloat16_exchange_rounds_each_gradient_and_sums_in_bfloat16(replicas):
    parts = parts_of(replicas)
    results = run(
        strategy_of(replicas), lambda g: exchange_gradients(g, "bfloat16"), parts
    )
    for result in results:
        for i, found in enumerate(result):
            assert found.dtype == "float32"
            found = found.numpy()
            np.testing.assert_array_equal(found, found.astype(BFLOAT16))
            rounded = [part[i].astype(BFLOAT16).astype(np.float64) for part in parts]
            # Each of the sums is rounded once, to eight bits.
            bound = 2.0**-8 * (replicas - 1) * sum(map(np.abs, rounded))
            assert np.all(np.abs(found - sum(rounded)) <= bound)


def test_a_single_replica_exchanges_nothing():
    gradients = [tf.constant([1.0 + 2.0**-20])]
    with strategy_of(1).scope():
        found = exchange_gradients(gradients, "bfloat16")
    assert found[0] is gradients[0]


def step_once(replicas, parts, **options):
    """Run a step of SGD from weights of one; return the weights and the optimizer."""
    strategy = strategy_of(replicas)
    with strategy.scope():
        variables = [
            keras.Variable(np.ones(shape), dtype="float32", name=f"weight_{i}")
            for i, shape in enumerate(SHAPES)
        ]
        optimizer = Optimizer(Momentum(momentum=None), RATE, **options)
        optimizer.build(variables)
    run(strategy, lambda g: [optimizer.apply(g, variables), [tf.zeros([])]][1], parts)
    return [variable.numpy() for variable in variables], optimizer


@pytest.mark.parametrize("replicas", [2, 4])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2e-2)]
)
def test_the_norm_and_clipping_are_those_of_the_sum(replicas, dtype, tolerance):
    parts = parts_of(replicas)
    sums = [sum(part[i].astype(np.float64) for part in parts) for i in range(2)]
    norm = np.sqrt(sum(np.sum(g**2) for g in sums))
    weights, optimizer = step_once(
        replicas, parts, clip_norm=CLIP, gradient_dtype=dtype
    )
    measured = float(optimizer.diagnostics["gradient_norm"].numpy())
    assert measured == pytest.approx(norm, rel=tolerance)
    for found, gradient in zip(weights, sums, strict=True):
        expected = 1.0 - RATE * gradient * min(1.0, CLIP / norm)
        np.testing.assert_allclose(found, expected, atol=tolerance * RATE * CLIP)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_replicas_overflow_skips_the_step_on_all(dtype):
    parts = parts_of(2)
    parts[1][0][0, 0] = np.inf
    weights, optimizer = step_once(2, parts, skip_nonfinite=True, gradient_dtype=dtype)
    for found in weights:
        np.testing.assert_array_equal(found, 1.0)
    assert float(optimizer.diagnostics["nonfinite_steps"].numpy()) == 1.0


def test_the_dtype_is_checked_and_kept_in_the_configuration():
    with pytest.raises(ValueError, match="`gradient_dtype` must be"):
        Optimizer(Momentum(), 0.1, gradient_dtype="float16")
    optimizer = Optimizer(Momentum(), 0.1, gradient_dtype="bfloat16")
    again = Optimizer.from_config(optimizer.get_config())
    assert again.gradient_dtype == "bfloat16"
