"""Train a small model on 1, 2 or 4 virtual devices with the same global batches."""
# SPDX-License-Identifier: Apache-2.0

import keras
import numpy as np
import tensorflow as tf

from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.vit import vit
from vit_scaling.optimization.accumulation import accumulate_gradients

SHAPE = ViTShape(patch=4, width=32, depth=1, mlp_width=64, heads=4)
CLASSES = 10
BATCH = 16
MICRO_BATCHES = 2
IMAGES = np.random.default_rng(0).uniform(-1, 1, (8, 16, 16, 3)).astype(np.float32)


def strategy_of(replicas):
    """Return a strategy over logical CPUs that may share a process with another."""
    # One group of collectives per process: strategies of different sizes would clash.
    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{number}" for number in range(replicas)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
    assert strategy.num_replicas_in_sync == replicas
    return strategy


def small_vit():
    """Return a ViT with every layer an optimizer may meet."""
    return randomized(vit(SHAPE, image_size=16, classes=CLASSES, seed=0))


def small_mlp():
    """Return a model that is traced in no time, for what does not need a ViT."""
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3), name="images")
    tokens = keras.layers.AveragePooling2D(2)(images)
    hidden = keras.layers.Flatten()(tokens)  # (batch, 192)
    hidden = keras.layers.Dense(40, activation="gelu", name="body")(hidden)
    logits = keras.layers.Dense(CLASSES, name="head")(hidden)
    return randomized(keras.Model(images, logits))


def randomized(model):
    """Return the model with noise on every weight: none starts at zero."""
    for number, variable in enumerate(model.trainable_variables):
        noise = np.random.default_rng([5, number]).normal(size=variable.shape)
        variable.assign(variable.numpy() + 0.1 * noise)
    return model


def batch_of(step):
    """Return the global batch of a step: a pure function of the step."""
    rng = np.random.default_rng([7, step])
    images = rng.uniform(-1, 1, (BATCH, 16, 16, 3)).astype(np.float32)
    labels = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, BATCH)]
    return images, labels


class Run:
    """A model and an optimizer under a strategy, and a traced step over both."""

    def __init__(self, make_model, make_optimizer, replicas):
        self.strategy = strategy_of(replicas)
        with self.strategy.scope():
            self.model = make_model()
            self.optimizer = make_optimizer()
            self.optimizer.build(self.model.trainable_variables)
        self.step = tf.function(self._step)

    def _step(self, images, labels):
        self.strategy.run(self._replica_step, args=(images, labels))

    def _replica_step(self, images, labels):
        outputs, gradients = accumulate_gradients(
            self._loss_and_gradients, (images, labels), MICRO_BATCHES
        )
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return outputs

    def _loss_and_gradients(self, batch):
        images, labels = batch
        with tf.GradientTape() as tape:
            logits = self.model(images, training=True)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(tf.reduce_sum(losses, axis=-1))
            scaled = loss / self.strategy.num_replicas_in_sync
        return {"loss": loss}, tape.gradient(scaled, self.model.trainable_variables)

    def train(self, steps, start=0):
        for step in range(start, start + steps):
            self.step(*(self._distributed(values) for values in batch_of(step)))
        return self

    def _distributed(self, values):
        part = BATCH // self.strategy.num_replicas_in_sync
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                values[context.replica_id_in_sync_group * part :][:part]
            )
        )

    @property
    def weights(self):
        return {v.path: v.numpy() for v in self.model.trainable_variables}

    @property
    def averages(self):
        variables = self.model.trainable_variables
        kept = self.optimizer.averages(variables)
        return {
            v.path: average.numpy() for v, average in zip(variables, kept, strict=True)
        }

    @property
    def everything(self):
        """All variables that a checkpoint holds, keyed by path."""
        return {
            v.path: v.value for v in self.model.variables + self.optimizer.variables
        }

    def logits(self):
        return self.model(IMAGES).numpy()
