"""Every image counts once, whatever the batch and the replicas; labels as facts 9.4."""
# SPDX-License-Identifier: Apache-2.0

import io

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training import small
from vit_scaling.batch_distribution import DistributedBatches
from vit_scaling.training import strategy as strategies
from vit_scaling.training.evaluator import Evaluator, InLoopEvaluator, batch_sums
from vit_scaling.training.logs import RunLog, read_metrics
from vit_scaling.training.losses import sigmoid_cross_entropy

IMAGES, LABELS = small.digits()


def evaluator(tmp_path, strategy, sets, model=None, batch_size=16, **options):
    with strategy.scope():
        model = model or small.linear()
        step = tf.Variable(12, dtype=tf.int64)
    return model, Evaluator(
        model,
        sigmoid_cross_entropy,
        {
            name: DistributedBatches(
                strategy,
                lambda context, data=data: data.dataset(
                    batch_size=batch_size, input_context=context
                ),
            )
            for name, data in sets.items()
        },
        strategy=strategy,
        global_step=step,
        log=RunLog(tmp_path, screen=io.StringIO()),
        **options,
    )


def strategy_of(replicas):
    return strategies.make_strategy() if replicas == 1 else small.mirrored(replicas)


def oracle(logits, labels):
    """Return the three means over labelled rows, from the definitions, in float64."""
    rows = [i for i in range(len(labels)) if labels[i].any()]
    best = np.argsort(-logits, axis=-1, kind="stable")
    logits, labels = logits.astype(np.float64), labels.astype(np.float64)
    probability = 1 / (1 + np.exp(-logits))
    each = labels * np.log(probability) + (1 - labels) * np.log(1 - probability)
    return {
        "top1": np.mean([labels[i, best[i, 0]] > 0 for i in rows]),
        "top5": np.mean([(labels[i, best[i, :5]] > 0).any() for i in rows]),
        "loss": np.mean([-each[i].sum() for i in rows]),
        "examples": len(rows),
    }


@pytest.mark.parametrize(
    ("replicas", "count", "jit_compile"),
    [(1, 43, False), (1, 43, True), (2, 43, False), (2, 16, False), (2, 3, False)],
)
def test_every_image_counts_once_with_a_ragged_last_batch(
    tmp_path, replicas, count, jit_compile
):
    strategy = strategy_of(replicas)
    assert strategy.num_replicas_in_sync == replicas
    data = small.EvalArrays(IMAGES[:count], LABELS[:count])
    model, made = evaluator(tmp_path, strategy, {"eval": data}, jit_compile=jit_compile)
    found = made.evaluate(tf.constant(-1))["eval"]
    expected = oracle(model.predict(IMAGES[:count], verbose=0), LABELS[:count])
    assert found["examples"] == count
    assert found["top1"] == expected["top1"] and found["top5"] == expected["top5"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)


@pytest.mark.parametrize("replicas", [1, 2])
def test_many_labels_count_if_any_is_hit_and_rows_without_labels_do_not(
    tmp_path, replicas
):
    generator = np.random.default_rng(0)
    labels = (generator.random((29, 10)) < 0.25).astype(np.float32)
    labels[[0, 7, 28]] = 0.0
    model, made = evaluator(
        tmp_path,
        strategy_of(replicas),
        {"real": small.EvalArrays(IMAGES[:29], labels)},
        batch_size=8,
    )
    found = made.evaluate(tf.constant(-1))["real"]
    expected = oracle(model.predict(IMAGES[:29], verbose=0), labels)
    assert found["examples"] == expected["examples"] < 29
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


def test_sums_of_a_batch_written_out_by_hand():
    logits = tf.constant(
        [
            [9.0, 8, 7, 6, 5, 4],  # First guess right, one label of two.
            [9.0, 8, 7, 6, 5, 4],  # Fifth guess right.
            [9.0, 8, 7, 6, 5, 4],  # Sixth: wrong in both.
            [9.0, 8, 7, 6, 5, 4],  # No label.
            [9.0, 8, 7, 6, 5, 4],  # Padding, though labelled.
        ]
    )
    labels = np.zeros((5, 6), np.float32)
    labels[0, [0, 5]] = labels[1, 4] = labels[2, 5] = labels[4, 0] = 1
    mask = tf.constant([1.0, 1, 1, 1, 0])
    sums = batch_sums(
        logits, tf.constant(labels), mask, lambda z, y: tf.constant([1.0, 2, 4, 8, 16])
    )
    assert {name: float(value) for name, value in sums.items()} == {
        "top1": 1,
        "top5": 2,
        "loss": 7,
        "examples": 3,
    }


def test_padding_that_overflows_leaves_the_loss_as_it_is():
    sums = batch_sums(
        tf.constant([[1.0, 0.0], [np.nan, np.inf]]),
        tf.constant([[1.0, 0.0], [1.0, 0.0]]),
        tf.constant([1.0, 0.0]),
        sigmoid_cross_entropy,
    )
    expected = np.log1p(np.exp(-1)) + np.log(2)
    assert float(sums["loss"]) == pytest.approx(expected, rel=1e-6)


def test_two_classes_have_a_top5_too():
    sums = batch_sums(
        tf.constant([[0.0, 1.0]]),
        tf.constant([[1.0, 0.0]]),
        tf.constant([1.0]),
        sigmoid_cross_entropy,
    )
    assert float(sums["top1"]) == 0 and float(sums["top5"]) == 1


def test_the_model_runs_as_in_inference(tmp_path):
    images = keras.Input((8, 8, 3))
    dropped = keras.layers.Dropout(0.9, seed=1)(keras.layers.Flatten()(images))
    model = keras.Model(images, keras.layers.Dense(10)(dropped))
    data = small.EvalArrays(IMAGES[:16], LABELS[:16])
    _, made = evaluator(tmp_path, strategy_of(1), {"eval": data}, model)
    first, second = (made.evaluate(tf.constant(-1)) for _ in range(2))
    assert first == second


def test_a_set_without_labels_is_rejected(tmp_path):
    data = small.EvalArrays(IMAGES[:4], np.zeros_like(LABELS[:4]))
    _, made = evaluator(tmp_path, strategy_of(1), {"eval": data})
    with pytest.raises(ValueError, match="at least one labelled image"):
        made.evaluate(tf.constant(-1))


class Other(InLoopEvaluator):
    name, interval_steps = "other", 10

    def evaluate(self, model, strategy):
        return {"figure": 0.5, "replicas": float(strategy.num_replicas_in_sync)}


def test_other_evaluators_run_at_their_interval_or_always(tmp_path):
    data = {"eval": small.EvalArrays(IMAGES[:4], LABELS[:4])}
    for step, always, ran in ((12, False, False), (20, False, True), (12, True, True)):
        _, made = evaluator(
            tmp_path, strategy_of(1), data, others=[Other()], always=always
        )
        made._global_step.assign(step)
        found = made.evaluate(tf.constant(-1))
        assert ("other" in found) is ran
    assert found["other"] == {"figure": 0.5, "replicas": 1.0}


def test_every_set_is_measured_and_logged_under_its_name(tmp_path):
    data = {
        "val": small.EvalArrays(IMAGES[:20], LABELS[:20]),
        "real": small.EvalArrays(IMAGES[20:30], LABELS[20:30]),
    }
    _, made = evaluator(tmp_path, strategy_of(1), data)
    found = made.evaluate(tf.constant(-1))
    assert found["val"]["examples"] == 20 and found["real"]["examples"] == 10
    for name, values in found.items():
        (row,) = read_metrics(tmp_path, name)
        assert row["step"] == 12
        assert {key: row[key] for key in values} == pytest.approx(values)


def test_a_number_of_batches_can_be_asked_for(tmp_path):
    data = {"eval": small.EvalArrays(IMAGES[:40], LABELS[:40])}
    _, made = evaluator(tmp_path, strategy_of(1), data)
    assert made.evaluate(tf.constant(2))["eval"]["examples"] == 32
