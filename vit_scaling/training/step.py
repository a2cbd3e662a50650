"""One training step, as a function of the variables and a batch."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import keras
import tensorflow as tf

from vit_scaling import backend
from vit_scaling.training.losses import LossFunction

Batch = Mapping[str, tf.Tensor]
TrainStep = Callable[[Batch], dict[str, tf.Tensor]]
Accumulate = Callable[..., tuple[Any, list[tf.Tensor]]]


def make_train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    loss: LossFunction,
    *,
    replicas: int = 1,
    accumulate: Accumulate | None = None,
    compile_gradients: bool = False,
    compile_step: bool = False,
) -> TrainStep:
    """Return the step of one replica: forward, backward, update.

    The function contains no distribution: under a strategy it runs inside
    `strategy.run`, and the TPU compiler takes the same function alone.

        logits = model(images);  loss = mean over the batch + regularizers
        gradients of loss / replicas;  optimizer sums over replicas, clips, updates

    Args:
        model: Takes images, returns logits (batch, classes).
        optimizer: Built on `model.trainable_variables`; its `apply` sums the gradients
            over replicas.
        loss: (logits, labels) to (batch,) float32.
        replicas: Number of replicas, by which the gradients are divided.
        accumulate: From (loss_and_gradients, batch) to the same outputs, accumulated
            over micro-batches. None takes the batch in one piece.
        compile_gradients: Whether XLA compiles only the forward and backward pass, as
            several replicas need it.
        compile_step: Whether XLA compiles the whole step. It cannot compile the sum
            over replicas. On a CPU, where that takes minutes, it compiles an encoder
            block and the update of a weight, each once for all of one shape.

    Returns:
        A function of {"images", "labels"}, returning {"loss", "regularization",
        "accuracy"}: scalar float32 means over the replica's batch.
    """
    variables = model.trainable_variables
    if accumulate is not None:  # It is all tensors: nothing for AutoGraph to change.
        accumulate = tf.autograph.experimental.do_not_convert(accumulate)

    def loss_and_gradients(batch: Batch) -> tuple[dict[str, tf.Tensor], list[Any]]:
        with tf.GradientTape() as tape:
            logits = model(batch["images"], training=True)  # (batch, classes)
            mean = tf.reduce_mean(loss(logits, batch["labels"]))
            penalties = [tf.cast(term, tf.float32) for term in model.losses]
            penalty = tf.add_n(penalties) if penalties else tf.zeros([])
            # Gradients are summed over replicas, so each counts 1/replicas
            # (tf.distribute guide, "Define the loss function").
            total = optimizer.scale_loss((mean + penalty) / replicas)
        gradients = tape.gradient(total, [variable.value for variable in variables])
        accuracy = tf.reduce_mean(_hits(logits, batch["labels"]))
        outputs = {"loss": mean, "regularization": penalty, "accuracy": accuracy}
        return outputs, gradients

    forward_backward = _maybe_compile(loss_and_gradients, compile_gradients)

    def train_step(batch: Batch) -> dict[str, tf.Tensor]:
        if accumulate is None:
            outputs, gradients = forward_backward(batch)
        else:
            outputs, gradients = accumulate(forward_backward, batch)
        optimizer.apply(gradients, variables)
        return outputs

    if compile_step and backend.has_only_cpus():
        return _share_programs(train_step)
    return _maybe_compile(train_step, compile_step)


def _hits(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return 1 where the first guess is the label, or the greatest of mixed labels."""
    guess = tf.one_hot(tf.argmax(logits, axis=-1), labels.shape[-1])
    weight, most = tf.reduce_sum(guess * labels, -1), tf.reduce_max(labels, -1)
    return tf.cast((weight == most) & (most > 0), tf.float32)  # (batch,)


def _share_programs(step: TrainStep) -> TrainStep:
    """Return the step with its repeated parts compiled, each once."""
    programs: dict[Hashable, Callable[..., Any]] = {}

    def step_of_parts(batch: Batch) -> dict[str, tf.Tensor]:
        with backend.sharing_programs(programs):
            return step(batch)

    return step_of_parts


def _maybe_compile(function: Callable[..., Any], is_wanted: bool) -> Callable[..., Any]:
    if not is_wanted:
        return function
    return tf.function(function, jit_compile=True, autograph=False)
