"""One step against NumPy: the mean over the batch, penalties, shares of replicas."""
# SPDX-License-Identifier: Apache-2.0

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training import small
from vit_scaling.optimization.accumulation import accumulate_gradients
from vit_scaling.training.losses import sigmoid_cross_entropy
from vit_scaling.training.step import make_train_step

IMAGES, LABELS = (array[:8] for array in small.digits())
BATCH = {"images": IMAGES, "labels": LABELS}


class Recorder:
    """Stands for an optimizer and keeps what it is given."""

    def scale_loss(self, loss):
        return loss

    def apply(self, gradients, variables):
        self.gradients = {
            v.path: g.numpy() for g, v in zip(gradients, variables, strict=True)
        }


def oracle(model):
    """Return loss and gradients of the linear model, in float64."""
    kernel, bias = (v.numpy().astype(np.float64) for v in model.variables)
    flat = IMAGES.reshape(8, -1).astype(np.float64)
    logits = flat @ kernel + bias
    probability = 1 / (1 + np.exp(-logits))
    each = LABELS * np.log(probability) + (1 - LABELS) * np.log(1 - probability)
    delta = (probability - LABELS) / 8
    return -each.sum(-1).mean(), {
        "head/kernel": flat.T @ delta,
        "head/bias": delta.sum(0),
    }


def run(model, batch=BATCH, **options):
    recorder = Recorder()
    step = make_train_step(model, recorder, sigmoid_cross_entropy, **options)
    tensors = {key: tf.constant(value) for key, value in batch.items()}
    return step(tensors), recorder.gradients


@pytest.mark.parametrize("replicas", [1, 4])
def test_gradients_are_those_of_the_mean_loss_divided_by_the_replicas(replicas):
    model = small.linear()
    outputs, gradients = run(model, replicas=replicas)
    loss, expected = oracle(model)
    assert float(outputs["loss"]) == pytest.approx(loss, rel=1e-6)
    assert float(outputs["regularization"]) == 0
    for path, gradient in gradients.items():
        np.testing.assert_allclose(
            gradient, expected[path] / replicas, rtol=1e-4, atol=1e-6
        )


def test_penalties_of_layers_are_reported_apart_and_move_the_weights():
    model = small.linear()
    model.get_layer("head").kernel.regularizer = keras.regularizers.L2(0.1)
    outputs, gradients = run(model)
    kernel = model.get_layer("head").kernel.numpy().astype(np.float64)
    loss, expected = oracle(model)
    penalty = 0.1 * (kernel**2).sum()
    assert float(outputs["loss"]) == pytest.approx(loss, rel=1e-6)
    assert float(outputs["regularization"]) == pytest.approx(penalty, rel=1e-6)
    expected["head/kernel"] += 0.2 * kernel
    for path, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[path], rtol=1e-4, atol=1e-6)


def test_micro_batches_give_the_gradients_of_the_whole_batch():
    model = small.linear()

    def accumulate(loss_and_gradients, batch):
        return accumulate_gradients(loss_and_gradients, batch, micro_batches=4)

    whole, expected = run(model)
    outputs, gradients = run(model, accumulate=accumulate)
    assert float(outputs["loss"]) == pytest.approx(float(whole["loss"]), rel=1e-6)
    for path, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[path], rtol=1e-4, atol=1e-6)


def test_the_model_runs_in_training_mode():
    images = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(images)
    logits = keras.layers.Dense(10)(keras.layers.Dropout(0.5, seed=1)(flat))
    model = keras.Model(images, logits)
    first, second = (float(run(model)[0]["loss"]) for _ in range(2))
    assert first != second  # Other masks each time.
