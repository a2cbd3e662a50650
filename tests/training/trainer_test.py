"""A loop of steps: traced once, counted right, stopped when it is not finite."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import tensorflow as tf

from tests.training import small
from vit_scaling.batch_distribution import DistributedBatches
from vit_scaling.optimization.adam import Adam
from vit_scaling.optimization.optimizer import Optimizer
from vit_scaling.training import strategy as strategies
from vit_scaling.training.divergence import LossGuard, LossWatch, NonFiniteError
from vit_scaling.training.losses import sigmoid_cross_entropy
from vit_scaling.training.profiling import Profiler
from vit_scaling.training.progress import Progress
from vit_scaling.training.step import make_train_step
from vit_scaling.training.step_times import StepTimes
from vit_scaling.training.trainer import Trainer

IMAGES, LABELS = small.digits()
SCHEDULE = small.experiment().schedule


def trainer(strategy, *, data=None, model=small.linear, jit_compile=False, **options):
    data = data or small.Arrays(IMAGES[:100], LABELS[:100])
    xla = strategies.choose_xla(strategy, jit_compile)
    times = StepTimes.for_strategy(strategy)
    with strategy.scope():
        model = model()
        optimizer = Optimizer(Adam(), SCHEDULE, **options)
        optimizer.build(model.trainable_variables)
        step = tf.Variable(0, dtype=tf.int64)
        replicas = strategy.num_replicas_in_sync
        made = Trainer(
            make_train_step(
                model,
                optimizer,
                sigmoid_cross_entropy,
                replicas=replicas,
                compile_gradients=xla.each_replica,
                compile_step=xla.whole_step,
            ),
            optimizer,
            strategy=strategy,
            global_step=step,
            progress=Progress(batch_size=8, total_steps=6, cores=1, replicas=replicas),
            learning_rate=SCHEDULE.at,
            watch=LossWatch(LossGuard()),
            times=times,
            profiler=Profiler("unused"),
        )
    made.train_dataset = DistributedBatches(
        strategy,
        lambda context: data.dataset(batch_size=8, seed=1, input_context=context),
    )
    return made, model


@pytest.mark.parametrize("replicas", [None, 1, 2])  # None: one device, no mirror.
@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_the_loop_is_traced_once_whatever_its_length(replicas, jit_compile):
    strategy = small.mirrored(replicas) if replicas else strategies.make_strategy()
    made, _ = trainer(strategy, jit_compile=jit_compile)
    assert made.traces() == 0
    for steps in (1, 3, 2):
        made.train(tf.constant(steps))
    assert made.traces() == 1
    assert made.global_step.numpy() == 6


def test_figures_of_a_loop_are_means_over_its_steps_and_nothing_before():
    made, _ = trainer(strategies.make_strategy())
    single, _ = trainer(strategies.make_strategy())
    made.train(tf.constant(2))
    outputs = made.train(tf.constant(3))
    losses = [single.train(tf.constant(1))["loss"] for _ in range(5)]
    assert outputs["loss"] == pytest.approx(np.mean(losses[2:]), rel=1e-6)
    assert outputs["learning_rate"] == SCHEDULE.at(4)
    assert outputs["images_seen"] == 5 * 8
    assert outputs["skipped"] == outputs["nonfinite_steps"] == 0


class Skips(small.Arrays):
    """Batches of each replica whose first record was bad."""

    def dataset(self, **options):
        def mark(batch):
            whole = tf.shape(batch["images"])[0]
            return {**batch, "skipped": tf.one_hot(0, whole)}

        return super().dataset(**options).map(mark)


@pytest.mark.parametrize("replicas", [1, 2])
def test_skipped_records_are_counted_over_steps_and_replicas(replicas):
    strategy = strategies.make_strategy() if replicas == 1 else small.mirrored(replicas)
    made, _ = trainer(strategy, data=Skips(IMAGES[:100], LABELS[:100]))
    assert made.train(tf.constant(2))["skipped"] == 2 * replicas
    assert made.train(tf.constant(3))["skipped"] == 3 * replicas


def test_reported_norms_are_those_of_the_weights_and_their_last_change():
    made, model = trainer(strategies.make_strategy())
    made.train(tf.constant(3))
    before = small.weights(model)
    outputs = made.train(tf.constant(1))
    after = small.weights(model)

    def norm(arrays):
        return np.sqrt(sum((a.astype(np.float64) ** 2).sum() for a in arrays))

    assert outputs["parameter_norm"] == pytest.approx(norm(after.values()), rel=1e-5)
    change = norm([after[path] - before[path] for path in after])
    assert outputs["update_norm"] == pytest.approx(change, rel=1e-3)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_two_replicas_train_to_the_weights_of_one(jit_compile):
    one, model = trainer(strategies.make_strategy(), clip_norm=1.0)
    two, twin = trainer(small.mirrored(2), clip_norm=1.0, jit_compile=jit_compile)
    for _ in range(2):
        first, second = one.train(tf.constant(3)), two.train(tf.constant(3))
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-6)
        assert second["gradient_norm"] == pytest.approx(
            first["gradient_norm"], rel=1e-5
        )
    for path, weight in small.weights(model).items():
        other = small.weights(twin)[path]
        distance = np.linalg.norm(other - weight) / np.linalg.norm(weight)
        assert distance < 1e-6, path


def test_single_steps_are_timed():
    made, _ = trainer(small.mirrored(2))
    outputs = made.train(tf.constant(3))
    seconds = [outputs[f"step_seconds_p{percent}"] for percent in (50, 90, 99)]
    assert 0 < seconds[0] <= seconds[1] <= seconds[2]
    assert 0 <= outputs["data_wait_share"] <= 1


def spoiled(number):
    """Return data whose batch of that number is not finite."""

    def spoil(images, n):
        return tf.where(tf.equal(n, number), np.float32("nan"), 0.0) + images

    return small.Arrays(IMAGES[:100], LABELS[:100], spoil)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_step_that_is_not_finite_stops_the_run_and_says_what_to_do(replicas):
    strategy = strategies.make_strategy() if replicas == 1 else small.mirrored(replicas)
    made, _ = trainer(strategy, data=spoiled(3))
    made.train(tf.constant(2))
    with pytest.raises(NonFiniteError, match=r"up to 4 .*Nothing.*`skip_nonfinite = T"):
        made.train(tf.constant(2))


def test_a_step_that_is_not_finite_is_left_out_where_the_options_say_so():
    made, model = trainer(
        strategies.make_strategy(), data=spoiled(3), skip_nonfinite=True
    )
    made.train(tf.constant(3))
    before = small.weights(model)
    outputs = made.train(tf.constant(1))
    assert outputs["nonfinite_steps"] == 1
    for path, weight in small.weights(model).items():
        np.testing.assert_array_equal(weight, before[path])
    outputs = made.train(tf.constant(2))
    assert outputs["nonfinite_steps"] == 1 and np.isfinite(outputs["loss"])
    assert not np.array_equal(
        small.weights(model)["head/kernel"], before["head/kernel"]
    )


def test_a_loss_that_overflows_stops_the_run_though_its_gradients_are_finite():
    labels = np.full_like(LABELS[:100], 1e18)  # The loss is infinite, its slope not.
    data = small.Arrays(IMAGES[:100] * 0, labels)
    made, model = trainer(strategies.make_strategy(), data=data)
    model.get_layer("head").bias.assign(np.full(10, -1e25))
    with pytest.raises(NonFiniteError, match="mean loss inf"):
        made.train(tf.constant(1))
