"""Loss scaling: overflow skips a step, the scale recovers, and nothing else changes."""
# SPDX-License-Identifier: Apache-2.0

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_scaling.optimization.loss_scale import LossScale
from vit_scaling.optimization.optimizer import Optimizer
from vit_scaling.optimization.update_rules import RULE_CLASSES

SHAPES = [(6, 4), (4,)]


def variables():
    generator = np.random.default_rng(0)
    return [
        keras.Variable(generator.normal(size=shape).astype(np.float32), name=f"w{n}")
        for n, shape in enumerate(SHAPES)
    ]


def gradients(step):
    generator = np.random.default_rng(step + 1)
    return [tf.constant(generator.normal(size=s), tf.float32) for s in SHAPES]


def scaled(optimizer, step):
    """The gradients of a loss that was scaled by the optimizer."""
    factor = optimizer.scale_loss(tf.constant(1.0))
    return [gradient * factor for gradient in gradients(step)]


def values(weights):
    return [np.array(w.numpy()) for w in weights]


@pytest.mark.parametrize("rule", RULE_CLASSES, ids=lambda rule: rule.__name__)
def test_a_scaled_run_equals_an_unscaled_one(rule):
    make = functools.partial(Optimizer, rule(), 1e-2, clip_norm=1.0)
    plain, loss_scaled = make(), make(skip_nonfinite=LossScale(initial=1024.0))
    ours, theirs = variables(), variables()
    for step in range(4):
        plain.apply(gradients(step), ours)
        loss_scaled.apply(scaled(loss_scaled, step), theirs)
    for one, other in zip(values(ours), values(theirs), strict=True):
        np.testing.assert_array_equal(one, other)  # Powers of two change no digit.


@pytest.mark.parametrize("rule", RULE_CLASSES, ids=lambda rule: rule.__name__)
def test_an_overflow_skips_the_step_and_the_scale_recovers(rule):
    scale = LossScale(initial=64.0, growth_steps=3)
    optimizer = Optimizer(rule(), 1e-2, skip_nonfinite=scale)
    weights = variables()
    optimizer.apply(scaled(optimizer, 0), weights)
    before = values(weights), [np.array(v.numpy()) for v in optimizer.variables[1:]]
    broken = [gradient * np.inf for gradient in gradients(1)]
    optimizer.apply(broken, weights)
    for one, other in zip(values(weights), before[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert float(optimizer.diagnostics["loss_scale"].numpy()) == 32.0
    assert float(optimizer.diagnostics["nonfinite_steps"].numpy()) == 1.0
    for step in range(2, 5):
        optimizer.apply(scaled(optimizer, step), weights)
    assert float(optimizer.diagnostics["loss_scale"].numpy()) == 64.0


def test_a_restored_optimizer_continues_bit_for_bit():
    scale = LossScale(initial=64.0, growth_steps=3)
    runs = []
    for _ in range(2):
        weights = variables()
        optimizer = Optimizer(RULE_CLASSES[0](), 1e-2, skip_nonfinite=scale)
        optimizer.build(weights)
        runs.append((optimizer, weights))
    (first, weights), (second, copies) = runs
    first.apply([g * np.inf for g in gradients(0)], weights)
    first.apply(scaled(first, 1), weights)
    for target, source in zip(second.variables, first.variables, strict=True):
        target.assign(source)
    for target, source in zip(copies, weights, strict=True):
        target.assign(source)
    for step in range(2, 6):
        first.apply(scaled(first, step), weights)
        second.apply(scaled(second, step), copies)
    for one, other in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    for one, other in zip(values(weights), values(copies), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_scale_follows_its_definition():
    rules = LossScale(initial=8.0, factor=2.0, growth_steps=2, minimum=4.0)
    scale, good = 8.0, 0.0
    history = []
    for finite in (True, True, False, False, False, True, True):
        found = rules.next(tf.constant(scale), tf.constant(good), tf.constant(finite))
        scale, good = (float(value) for value in found)
        history.append(scale)
    assert history == [8.0, 16.0, 8.0, 4.0, 4.0, 4.0, 8.0]


def test_without_a_scale_the_loss_is_unchanged():
    optimizer = Optimizer(RULE_CLASSES[0](), 1e-2, skip_nonfinite=True)
    assert optimizer.scale_loss(3.0) == 3.0


def test_the_configuration_survives():
    optimizer = Optimizer(
        RULE_CLASSES[0](), 1e-2, skip_nonfinite=LossScale(initial=4.0)
    )
    copy = Optimizer.from_config(optimizer.get_config())
    assert copy.skip_nonfinite == LossScale(initial=4.0)
    with pytest.raises(ValueError, match="factor"):
        LossScale(factor=1.0)
