"""The losses against float64 NumPy: sums over classes, smoothing, soft labels."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import tensorflow as tf

from vit_scaling.training.losses import sigmoid_cross_entropy, softmax_cross_entropy

RNG = np.random.default_rng(3)
LOGITS = RNG.normal(scale=4.0, size=(5, 7))
ONE_HOT = np.eye(7)[[0, 3, 6, 1, 1]]
MULTI_HOT = (RNG.random((5, 7)) < 0.4).astype(float)
MULTI_HOT[0] = 0.0  # An image without a label.
MULTI_HOT[1] = 1.0
SOFT = 0.3 * ONE_HOT + 0.7 * ONE_HOT[::-1]  # As mixup leaves them.
LABELS = {"one_hot": ONE_HOT, "multi_hot": MULTI_HOT, "soft": SOFT}


def sigmoid_oracle(logits, labels, smoothing):
    labels = (1 - smoothing) * labels + smoothing * 0.5
    probability = 1 / (1 + np.exp(-logits))
    each = labels * np.log(probability) + (1 - labels) * np.log(1 - probability)
    return -each.sum(axis=-1)


def softmax_oracle(logits, labels, smoothing):
    classes = logits.shape[-1]
    mass = labels.sum(axis=-1, keepdims=True)
    labels = np.divide(labels, mass, out=np.zeros_like(labels), where=mass > 0)
    labels = (1 - smoothing) * labels + smoothing / classes
    probability = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return -(labels * np.log(probability)).sum(axis=-1)


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("loss", "oracle"),
    [(sigmoid_cross_entropy, sigmoid_oracle), (softmax_cross_entropy, softmax_oracle)],
)
def test_losses_agree_with_float64(loss, oracle, smoothing, kind):
    labels = LABELS[kind]
    found = loss(
        tf.constant(LOGITS, tf.float32),
        tf.constant(labels, tf.float32),
        label_smoothing=smoothing,
    )
    assert found.dtype == tf.float32 and found.shape == (5,)
    expected = oracle(LOGITS, labels, smoothing)
    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=1e-6)


def test_sigmoid_loss_is_a_sum_over_classes_not_a_mean():
    # All logits 0: each class costs ln 2, so ten times the classes cost ten times.
    for classes in (3, 30):
        zeros = tf.zeros([2, classes])
        expected = np.full(2, classes * np.log(2.0))
        np.testing.assert_allclose(sigmoid_cross_entropy(zeros, zeros), expected, 1e-6)


def test_losses_stay_finite_for_extreme_logits():
    logits, labels = tf.constant([[-1e4, 1e4]]), tf.constant([[1.0, 0.0]])
    np.testing.assert_allclose(sigmoid_cross_entropy(logits, labels), [2e4])
    np.testing.assert_allclose(softmax_cross_entropy(logits, labels), [2e4])


def test_losses_are_computed_in_float32_whatever_comes():
    logits = tf.constant([[100.25, -3.0]], tf.bfloat16)  # 100.25 rounds to 100.
    found = sigmoid_cross_entropy(logits, tf.constant([[0, 1]], tf.int32))
    assert found.dtype == tf.float32
    expected = sigmoid_oracle(np.array([[-3.0]]), np.array([[1.0]]), 0) + 100
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("loss", [sigmoid_cross_entropy, softmax_cross_entropy])
def test_losses_refuse_what_does_not_fit(loss):
    with pytest.raises(ValueError, match=r"same shape \(batch, classes\).*\(2, 3\)"):
        loss(tf.zeros([2, 3]), tf.zeros([2, 4]))
    with pytest.raises(
        ValueError,
        match=r"`label_smoothing` must be a number of at least 0 and below 1",
    ):
        loss(tf.zeros([2, 3]), tf.zeros([2, 3]), label_smoothing=1.0)
