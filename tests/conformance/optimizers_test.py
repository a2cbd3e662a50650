"""What every optimizer must do: replicas, restoring, saving, XLA, one trace."""
# SPDX-License-Identifier: Apache-2.0

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.optimization.cases import relative_error, traced_apply, variables_for
from tests.optimization.replicas import BATCH, Run, batch_of, small_mlp, small_vit
from vit_scaling.optimization.adafactor import Adafactor
from vit_scaling.optimization.averaging import AverageDecay
from vit_scaling.optimization.learning_rate_schedules import ReciprocalSqrt
from vit_scaling.optimization.momentum import Momentum
from vit_scaling.optimization.optimizer import Optimizer
from vit_scaling.optimization.update_rules import RULES_BY_FLAG
from vit_scaling.optimization.weight_decay import head_and_body

STEPS = 20

RULES = {
    **RULES_BY_FLAG,
    "nesterov": Momentum(momentum_dtype="bfloat16", nesterov=True),
}
EVERY = pytest.mark.parametrize("name", RULES)


BODY_ONLY = head_and_body()[1:]  # For weights without a classifier.


def make(rule, rate=1e-3, *, weight_decay=None, **options):
    """Return an optimizer with every option on that a step may have."""
    schedule = ReciprocalSqrt(
        rate, total_steps=40, warmup_steps=5, cooldown_steps=10, timescale_steps=10
    )
    return Optimizer(
        rule,
        schedule,
        weight_decay=weight_decay or head_and_body(head=3.0, body=0.03),
        clip_norm=1.0,
        average_decay=AverageDecay(0.9, warmup_steps=3),
        **options,
    )


@functools.cache
def trained(make_model, name, replicas):
    return Run(make_model, functools.partial(make, RULES[name], 1e-4), replicas).train(
        STEPS
    )


@pytest.mark.parametrize(
    ("make_model", "name", "replicas"),
    [
        (small_vit, "adafactor", 2),
        pytest.param(small_vit, "adafactor", 4, marks=pytest.mark.slow),
        (small_vit, "adam", 2),
        (small_mlp, "momentum", 2),
        *((small_mlp, name, 4) for name in RULES),
    ],
)
def test_replicas_train_the_same_weights(make_model, name, replicas):
    """Same global batch, float32, no dropout; clipping, decay, accumulation, averages.

    A moment in bfloat16 turns a difference of 1e-7 into one of 4e-3 where it crosses a
    rounding border, hence the rate of 1e-4 and weights that do not start at zero.
    """
    one, many = trained(make_model, name, 1), trained(make_model, name, replicas)
    same_weights(one, many)


@pytest.mark.slow  # Half a minute: it traces a ViT on four replicas.
def test_with_float32_moments_replicas_agree_at_the_usual_rate_too():
    """No rounding border that a difference of 1e-7 could cross."""
    make_optimizer = functools.partial(make, Adafactor(momentum_dtype="float32"))
    same_weights(
        *(Run(small_vit, make_optimizer, number).train(STEPS) for number in (1, 4))
    )


def same_weights(one, many):
    for kind in ("weights", "averages"):
        expected, actual = getattr(one, kind), getattr(many, kind)
        assert list(actual) == list(expected)
        for path in expected:
            assert relative_error(actual[path], expected[path]) < 1e-6, (kind, path)
    np.testing.assert_allclose(many.logits(), one.logits(), rtol=1e-5, atol=1e-5)


def test_the_comparison_of_replicas_can_fail():
    """The weights have moved by far more than the tolerance."""
    one = trained(small_mlp, "momentum", 1).weights
    start = Run(small_mlp, functools.partial(make, RULES["momentum"], 1e-4), 1).weights
    moved = [relative_error(start[path], one[path]) for path in one]
    assert min(moved) > 1e-4


@EVERY
def test_replicas_hold_bit_equal_copies(name):
    run = trained(small_mlp, name, 4)
    for path, variable in run.everything.items():
        copies = [v.numpy() for v in run.strategy.experimental_local_results(variable)]
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0], err_msg=path)


@EVERY
def test_a_step_is_traced_once(name):
    assert trained(small_mlp, name, 4).step.experimental_get_tracing_count() == 1


@EVERY
def test_restoring_then_going_on_is_never_having_stopped(name, tmp_path):
    run = Run(small_mlp, functools.partial(make, RULES[name]), 2).train(7)
    path = tf.train.Checkpoint(**_keyed(run)).save(tmp_path / "checkpoint")
    run.train(5, start=7)

    again = Run(small_mlp, functools.partial(make, RULES[name]), 2).train(2)
    tf.train.Checkpoint(**_keyed(again)).restore(path).assert_consumed()
    again.train(5, start=7)
    assert again.optimizer.iterations.numpy() == 12
    for path, variable in run.everything.items():
        np.testing.assert_array_equal(
            again.everything[path].numpy(), variable.numpy(), err_msg=path
        )


def _keyed(run):
    return {"variables": _Dict(run.everything)}


class _Dict(tf.Module):
    """Keyed by path, whatever the variables' place in the model."""

    def __init__(self, variables):
        super().__init__()
        self.by_path = dict(variables)


@EVERY
def test_xla_and_graph_compute_the_same(name):
    shapes = ((33,), (36, 40))
    results = []
    for jit_compile in (False, True):
        variables = variables_for(shapes)
        optimizer = make(RULES[name], skip_nonfinite=True, weight_decay=BODY_ONLY)
        optimizer.build(variables)
        apply = traced_apply(optimizer, variables, jit_compile=jit_compile)
        for step in range(6):
            rng = np.random.default_rng(step)
            apply([tf.constant(rng.normal(size=s), tf.float32) for s in shapes])
        results.append([v.numpy() for v in variables])
    for plain, compiled in zip(*results, strict=True):
        assert relative_error(compiled, plain) < 1e-6


# Keras 3.15 saves by np.array(variable), which NumPy 2.4 deprecates for TensorFlow's.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@EVERY
def test_fit_saves_and_loads(name, tmp_path):
    def compiled():
        model = small_mlp()
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        # XLA for one of them: it compiles for seconds.
        model.compile(make(RULES[name]), loss, jit_compile=name == "adafactor")
        return model

    batches = tf.data.Dataset.from_tensor_slices(batch_of(0)).batch(BATCH).repeat()
    whole, half = compiled(), compiled()
    whole.fit(batches, steps_per_epoch=6, shuffle=False, verbose=0)
    half.fit(batches, steps_per_epoch=3, shuffle=False, verbose=0)
    half.save(tmp_path / "half.keras")
    again = keras.saving.load_model(tmp_path / "half.keras")
    assert type(again.optimizer) is type(half.optimizer)
    assert again.optimizer.get_config() == half.optimizer.get_config()
    again.fit(batches, steps_per_epoch=3, shuffle=False, verbose=0)
    ours = whole.variables + whole.optimizer.variables
    theirs = again.variables + again.optimizer.variables
    assert [v.path for v in ours] == [v.path for v in theirs]
    for variable, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(
            other.numpy(), variable.numpy(), err_msg=variable.path
        )


@EVERY
def test_a_config_builds_the_same_optimizer(name):
    optimizer = make(RULES[name], learning_rate_multipliers=((".*/bias", 0.5),))
    config = keras.saving.serialize_keras_object(optimizer)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()


@EVERY
def test_state_paths_are_unique_and_do_not_depend_on_where_it_is_built(name):
    variables = variables_for(((33,), (36, 40)))
    one, other = (make(RULES[name], weight_decay=BODY_ONLY) for _ in range(2))
    one.build(variables)
    with keras.name_scope("somewhere"):
        other.build(variables)
    paths = [v.path for v in one.variables]
    assert len(set(paths)) == len(paths)
    assert [v.path for v in other.variables] == paths
    assert f"{one.name}/weight_01/kernel/first_moment" in paths
