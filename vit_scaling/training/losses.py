"""Sigmoid and softmax cross-entropy over multi-hot labels (paper §3.3)."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable

import tensorflow as tf

from vit_scaling.argument_types import Probability, check_arguments

LossFunction = Callable[..., tf.Tensor]


@check_arguments
def sigmoid_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, *, label_smoothing: Probability = 0.0
) -> tf.Tensor:
    """Return -sum over classes of y log σ(z) + (1 - y) log σ(-z), per example.

    The loss is summed over the classes, as in the paper's multi-label pre-training
    (§3.3). The training step takes the mean over the batch.

    Args:
        logits: (batch, classes).
        labels: (batch, classes), multi-hot, or soft after mixup.
        label_smoothing: Fraction of each target that is replaced by 1/2; 0 in the
            paper.

    Returns:
        (batch,) float32, in nats.
    """
    logits, labels = _check_and_cast(logits, labels)
    labels = labels * (1.0 - label_smoothing) + 0.5 * label_smoothing
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.reduce_sum(losses, axis=-1)  # (batch,)


@check_arguments
def softmax_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, *, label_smoothing: Probability = 0.0
) -> tf.Tensor:
    """Return -sum over classes of y log softmax(z), per example (fine-tuning, App. D).

    Args:
        logits: (batch, classes).
        labels: (batch, classes); rows of several labels share the mass evenly.
        label_smoothing: Fraction of the mass spread evenly over all classes.

    Returns:
        (batch,) float32, in nats.
    """
    logits, labels = _check_and_cast(logits, labels)
    mass = tf.reduce_sum(labels, axis=-1, keepdims=True)  # (batch, 1)
    labels = tf.math.divide_no_nan(labels, mass)
    classes = tf.cast(tf.shape(labels)[-1], tf.float32)
    labels = labels * (1.0 - label_smoothing) + label_smoothing / classes
    return tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def _check_and_cast(
    logits: tf.Tensor, labels: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    if not logits.shape.is_compatible_with(labels.shape):
        raise ValueError(
            "`logits` and `labels` must have the same shape (batch, classes); received "
            f"{logits.shape} and {labels.shape}. Do the model's `classes` and the "
            "data's `classes` agree?"
        )
    return tf.cast(logits, tf.float32), tf.cast(labels, tf.float32)
