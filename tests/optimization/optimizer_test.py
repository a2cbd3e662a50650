"""The frame of a step: clipping, decay by path, skipping, freezing, measuring."""
# SPDX-License-Identifier: Apache-2.0

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.optimization.cases import (
    relative_error,
    state_of,
    traced_apply,
    variable_at,
    weights_for,
)
from tests.optimization.replicas import strategy_of
from vit_scaling.optimization.adam import Adam
from vit_scaling.optimization.averaging import AverageDecay, averaged_weights
from vit_scaling.optimization.learning_rate_multipliers import freeze
from vit_scaling.optimization.learning_rate_schedules import Constant, Linear
from vit_scaling.optimization.momentum import Momentum
from vit_scaling.optimization.optimizer import Optimizer
from vit_scaling.optimization.update_rule import UpdateRule
from vit_scaling.optimization.weight_decay import head_and_body

PATHS = ("block_00/mlp/dense_0/kernel", "block_00/mlp/dense_0/bias", "head/kernel")
SHAPES = ((4, 5), (5,), (5, 3))


def three_variables():
    """Return a body kernel, a body bias and the classifier's kernel."""
    return [
        variable_at(path, weights_for(shape).astype("float32"))
        for path, shape in zip(PATHS, SHAPES, strict=True)
    ]


def gradients_of(step, scale=1.0):
    rng = np.random.default_rng([3, step])
    return [tf.constant(scale * rng.normal(size=s), tf.float32) for s in SHAPES]


def zeros():
    return [tf.zeros(shape) for shape in SHAPES]


def values(variables):
    return [v.numpy().copy() for v in variables]


def sgd(rate, **options):
    return Optimizer(Momentum(momentum=None), rate, **options)


def norm_of(arrays):
    return np.sqrt(sum(np.sum(np.asarray(a, np.float64) ** 2) for a in arrays))


def test_clipping_goes_by_the_norm_of_all_gradients():
    variables = three_variables()
    before, gradients = values(variables), gradients_of(0, scale=10)
    optimizer = sgd(0.1, clip_norm=1.0)
    optimizer.apply(gradients, variables)
    norm = norm_of(gradients)
    for w, g, now in zip(before, gradients, values(variables), strict=True):
        np.testing.assert_allclose(now, w - 0.1 * g.numpy() / norm, rtol=1e-5)
    assert optimizer.diagnostics["gradient_norm"].numpy() == pytest.approx(norm)


def test_a_small_gradient_is_not_clipped():
    variables = three_variables()
    before, gradients = values(variables), gradients_of(0, scale=1e-3)
    sgd(0.1, clip_norm=1.0).apply(gradients, variables)
    for w, g, now in zip(before, gradients, values(variables), strict=True):
        np.testing.assert_array_equal(now, w - np.float32(0.1) * g.numpy())


@pytest.mark.parametrize("merges", [None, True, False])  # None: under no strategy.
def test_norms_are_measured(merges, monkeypatch):
    strategy = tf.distribute.get_strategy() if merges is None else strategy_of(1)
    if merges is not None:  # On GPUs under XLA, TensorFlow updates without merging.
        monkeypatch.setattr(strategy.extended, "_use_merge_call", lambda: merges)
    with strategy.scope():
        variables = three_variables()
        optimizer = Optimizer(Adam(), 1e-2, weight_decay=head_and_body())
        optimizer.build(variables)
    before = values(variables)
    strategy.run(lambda: optimizer.apply(gradients_of(0), variables))
    after = values(variables)
    measured = {k: float(v.numpy()) for k, v in optimizer.diagnostics.items()}
    change = norm_of([a - b for a, b in zip(after, before, strict=True)])
    assert measured == {
        "gradient_norm": pytest.approx(norm_of(gradients_of(0)), rel=1e-5),
        "update_norm": pytest.approx(change, rel=1e-4),
        "parameter_norm": pytest.approx(norm_of(after), rel=1e-5),
        "nonfinite_steps": 0.0,
    }


def test_head_and_body_decay_apart_and_biases_not():
    variables = three_variables()
    before = values(variables)
    sgd(1e-2, weight_decay=head_and_body(head=3.0, body=0.03)).apply(zeros(), variables)
    body, bias, head = values(variables)
    np.testing.assert_allclose(body, before[0] * (1 - 1e-2 * 0.03), rtol=1e-6)
    np.testing.assert_array_equal(bias, before[1])
    np.testing.assert_allclose(head, before[2] * (1 - 1e-2 * 3.0), rtol=1e-6)


@pytest.mark.parametrize("absolute", [False, True])
def test_decay_is_the_authors_at_their_base_rate(absolute):
    """Their 0.03 · 8e-4 · schedule is 0.03 · lr, as the paper writes it."""
    scale = 8e-4 if absolute else 1.0
    variables = three_variables()
    before = values(variables)
    optimizer = sgd(
        Linear(8e-4, total_steps=10),
        weight_decay=head_and_body(head=3.0 * scale, body=0.03 * scale),
        absolute_weight_decay=absolute,
    )
    shrink = np.ones(2)
    for step in range(5):
        optimizer.apply(zeros(), variables)
        shrink *= 1 - 8e-4 * (1 - step / 10) * np.array([0.03, 3.0])
    body, _, head = values(variables)
    assert relative_error(body, before[0] * shrink[0]) < 1e-6
    assert relative_error(head, before[2] * shrink[1]) < 1e-6


def test_absolute_decay_ignores_the_base_rate_and_multipliers():
    results = []
    for base, factor in ((1e-3, 1.0), (4e-3, 0.5)):
        variables = three_variables()
        optimizer = sgd(
            Linear(base, total_steps=10),
            weight_decay=head_and_body(head=1e-2, body=1e-3),
            absolute_weight_decay=True,
            learning_rate_multipliers=((".*", factor),),
        )
        for _ in range(3):
            optimizer.apply(zeros(), variables)
        results.append(values(variables))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_relative_decay_follows_the_multiplier():
    variables = three_variables()
    before = values(variables)
    optimizer = sgd(
        0.1,
        weight_decay=head_and_body(head=3.0),
        learning_rate_multipliers=(("head/.*", 0.5),),
    )
    optimizer.apply(gradients_of(0), variables)
    gradient = gradients_of(0)[2].numpy()
    expected = before[2] - 0.1 * 0.5 * (gradient + 3.0 * before[2])
    np.testing.assert_allclose(variables[2].numpy(), expected, rtol=1e-5, atol=1e-7)


def test_frozen_weights_have_no_state_and_no_part():
    variables = three_variables()
    before = values(variables)
    optimizer = Optimizer(
        Adam(),
        1e-2,
        weight_decay=head_and_body(),
        average_decay=0.9,
        learning_rate_multipliers=freeze("block_00/.*"),
    )
    gradients = gradients_of(0)
    optimizer.apply(gradients, variables)
    assert [v.path for v in optimizer.variables if "block_00" in v.path] == []
    np.testing.assert_array_equal(variables[0].numpy(), before[0])
    np.testing.assert_array_equal(variables[1].numpy(), before[1])
    assert np.any(variables[2].numpy() != before[2])
    measured = optimizer.diagnostics["gradient_norm"].numpy()
    assert measured == pytest.approx(norm_of(gradients[2:]))
    averages = optimizer.averages(variables)
    assert averages[0] is variables[0]
    assert averages[2].path == "adam/head/kernel/average"


def test_a_run_may_be_frozen_whole():
    variables = three_variables()
    before = values(variables)
    Optimizer(Adam(), 1e-2, learning_rate_multipliers=freeze(".*")).apply(
        zeros(), variables
    )
    for one, other in zip(values(variables), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_skipped_step_leaves_everything_but_the_count(bad):
    """Weights, moments, averages, bias corrections: as if the step had not been."""
    runs = []
    for with_bad in (False, True):
        variables = three_variables()
        optimizer = Optimizer(
            Adam(),
            1e-2,
            skip_nonfinite=True,
            average_decay=0.9,
            weight_decay=head_and_body(),
        )
        optimizer.build(variables)
        apply = traced_apply(optimizer, variables)
        for step in range(4):
            if with_bad and step in (0, 2):
                gradients = gradients_of(step)
                gradients[1] = tf.fill(SHAPES[1], tf.constant(bad, tf.float32))
                apply(gradients)
            apply(gradients_of(step))
        runs.append((optimizer, variables))
    (clean, clean_weights), (skipped, skipped_weights) = runs
    assert skipped.diagnostics["nonfinite_steps"].numpy() == 2
    assert skipped.iterations.numpy() == 6
    for one, other in zip(clean_weights, skipped_weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
        ours, theirs = state_of(clean, one), state_of(skipped, other)
        for key, value in ours.items():
            np.testing.assert_array_equal(theirs[key], value, err_msg=key)


def test_without_skipping_a_bad_step_is_counted():
    variables = three_variables()
    optimizer = sgd(1e-2)
    gradients = gradients_of(0)
    gradients[0] = tf.fill(SHAPES[0], np.float32(np.nan))
    optimizer.apply(gradients, variables)
    assert optimizer.diagnostics["nonfinite_steps"].numpy() == 1
    assert np.all(np.isnan(variables[0].numpy()))


def test_a_plain_rate_works_under_replicas():
    """Keras makes a variable of it, which has a copy on every replica."""
    ends = []
    for replicas in (1, 2):
        strategy = strategy_of(replicas)
        with strategy.scope():
            variables = three_variables()
            decay = ((".*kernel", 0.1),)
            optimizer = Optimizer(
                Adam(), 1e-2, weight_decay=decay, absolute_weight_decay=True
            )
            optimizer.build(variables)

        def step(optimizer=optimizer, variables=variables, parts=replicas):
            optimizer.apply(gradients_of(0, 1 / parts), variables)

        strategy.run(tf.function(step))
        ends.append(values(v.value for v in variables))
    for one, two in zip(*ends, strict=True):
        assert relative_error(two, one) < 1e-6


def test_keras_schedules_and_functions_give_a_rate_too():
    rates = (keras.optimizers.schedules.CosineDecay(1e-2, 10), lambda: 1e-2, 1e-2)
    ends = []
    for rate in rates:
        variables = three_variables()
        optimizer = sgd(rate, weight_decay=((".*", 0.1),), absolute_weight_decay=True)
        optimizer.build(variables)
        optimizer.apply(gradients_of(0), variables)
        ends.append(values(variables))
    for other in ends[:2]:
        for expected, actual in zip(ends[2], other, strict=True):
            assert relative_error(actual, expected) < 1e-6


def test_update_s_uses_the_schedule_at_s():
    """0-based: a warm-up starts at a rate of 0, and the last step is not at 0."""
    variables = three_variables()
    before = values(variables)
    optimizer = sgd(Constant(1.0, total_steps=4, warmup_steps=2, cooldown_steps=2))
    taken = []
    for _ in range(4):
        optimizer.apply([tf.ones(shape) for shape in SHAPES], variables)
        taken.append(float(before[1][0] - variables[1].numpy()[0]))
    np.testing.assert_allclose(np.diff([0.0, *taken]), [0, 0.5, 1.0, 0.5], atol=1e-6)


def test_the_average_is_a_copy_then_a_mean_then_exponential():
    variables = three_variables()
    optimizer = sgd(0.1, average_decay=AverageDecay(0.75, warmup_steps=2))
    optimizer.build(variables)
    (_, _, average) = optimizer.averages(variables)
    np.testing.assert_array_equal(average.numpy(), variables[2].numpy())
    seen = []
    for step in range(8):
        optimizer.apply(gradients_of(step), variables)
        seen.append(variables[2].numpy().astype(np.float64))
        if step <= 2:
            expected = seen[-1]
        elif step <= 5:
            expected = np.mean(seen[2:], axis=0)  # 1/2, 2/3, 3/4 of the old are kept…
        else:
            expected = 0.75 * expected + 0.25 * seen[-1]  # … and no more than that.
        np.testing.assert_allclose(average.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_averaged_weights_go_in_and_out():
    variables = three_variables()
    optimizer = sgd(0.1, average_decay=0.9)
    for step in range(5):
        optimizer.apply(gradients_of(step), variables)
    trained = values(variables)
    averages = values(optimizer.averages(variables))
    with (
        pytest.raises(RuntimeError, match="stop"),
        averaged_weights(optimizer, variables),
    ):
        for variable, average in zip(variables, averages, strict=True):
            np.testing.assert_array_equal(variable.numpy(), average)
        raise RuntimeError("stop")
    for variable, value in zip(variables, trained, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    with (
        pytest.raises(ValueError, match="average_decay"),
        averaged_weights(sgd(0.1), variables),
    ):
        pass


def test_averages_are_none_or_need_a_built_optimizer():
    variables = three_variables()
    assert sgd(0.1).averages(variables) is None
    with pytest.raises(ValueError, match="build"):
        sgd(0.1, average_decay=0.9).averages(variables)


def test_equal_paths_are_refused():
    variable = keras.Variable(np.zeros(3), name="kernel")
    other = keras.Variable(np.zeros(3), name="kernel")
    with pytest.raises(ValueError, match="different paths"):
        Optimizer(Adam(), 1e-3).build([variable, other])


def test_a_float64_weight_is_updated_in_float64():
    variable = keras.Variable(np.ones(3), dtype="float64", name="kernel")
    sgd(2.0**-40).apply([tf.ones(3, tf.float64)], [variable])
    np.testing.assert_array_equal(variable.numpy(), 1 - 2.0**-40)


def test_a_rule_must_define_slots_and_a_direction():
    class Unfinished(UpdateRule):
        pass

    with pytest.raises(TypeError, match=r"direction.*slots"):
        Unfinished()
    with pytest.raises(ValueError, match="`rule` must be of type UpdateRule"):
        Optimizer(1e-3, 1e-3)
