"""Small models and sets in memory, so that a test of training takes a second."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vit_scaling.experiment import Experiment
from vit_scaling.image_preprocessing import CentralCrop
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.vit import vit
from vit_scaling.optimization.adam import Adam
from vit_scaling.optimization.learning_rate_schedules import ReciprocalSqrt
from vit_scaling.optimization.optimizer import Optimizer
from vit_scaling.optimization.weight_decay import head_and_body

SIDE = 8
CLASSES = 10
SHAPE = ViTShape(patch=4, width=16, depth=2, mlp_width=32, heads=2)


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's images, (1797, 8, 8, 3) in [-1, 1], and one-hot labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.repeat(found.images[..., None] / 8.0 - 1.0, 3, axis=-1)
    return images.astype(np.float32), np.eye(10, dtype=np.float32)[found.target]


@dataclasses.dataclass
class Arrays:
    """Training images in memory; batch n depends on (seed, n) alone.

    `spoil` turns the images of batch n into others, given (images, n); `numbers` gives
    the batch that comes in the place of batch n.
    """

    images: np.ndarray
    labels: np.ndarray
    spoil: Callable[[Any, Any], Any] | None = None
    numbers: Callable[[Any], Any] | None = None

    value_range = (-1.0, 1.0)
    classes = CLASSES
    source = types.SimpleNamespace(class_names=tuple("0123456789"))

    @property
    def num_examples(self) -> int:
        return len(self.images)

    def describe(self) -> str:
        return f"{self.num_examples} images"

    def dataset(
        self,
        *,
        batch_size: int,
        seed: int,
        start_step: int = 0,
        order_version: int = 2,
        input_context=None,
    ) -> tf.data.Dataset:
        def batch(number):
            if self.numbers is not None:
                number = self.numbers(number)
            rows = tf.random.stateless_uniform(
                [batch_size], [seed, number], 0, len(self.images), tf.int64
            )
            images = tf.gather(self.images, rows)
            if self.spoil is not None:
                images = self.spoil(images, number)
            return {
                "images": tf.ensure_shape(images, [batch_size, *self.images.shape[1:]]),
                "labels": tf.gather(self.labels, rows),
            }

        replicas = input_context.num_replicas_in_sync if input_context else 1
        batches = tf.data.Dataset.counter(start_step).map(batch)
        if replicas == 1:
            return batches
        return batches.rebatch(batch_size // replicas, drop_remainder=True)


@dataclasses.dataclass
class EvalArrays:
    """Every image once; the last batch of every replica is filled with masked ones."""

    images: np.ndarray
    labels: np.ndarray

    preprocess = CentralCrop()
    image_size = SIDE

    def dataset(self, *, batch_size: int, input_context=None) -> tf.data.Dataset:
        replicas = input_context.num_replicas_in_sync if input_context else 1
        missing = -len(self.images) % batch_size
        parts = {
            "images": self.images,
            "labels": self.labels,
            "mask": np.ones(len(self.images), np.float32),
        }
        padded = {
            key: np.concatenate([part, np.zeros_like(part[:1]).repeat(missing, 0)])
            for key, part in parts.items()
        }
        whole = tf.data.Dataset.from_tensor_slices(padded)
        return whole.batch(batch_size // replicas, drop_remainder=True)


def linear(width: int = CLASSES) -> keras.Model:
    """Return a linear classifier of small images, as quick as a model can be."""
    images = keras.Input((SIDE, SIDE, 3), name="images")
    flat = keras.layers.Flatten(name="flat")(images)
    kernel = keras.initializers.GlorotUniform(seed=1)
    logits = keras.layers.Dense(width, kernel_initializer=kernel, name="head")(flat)
    return keras.Model(images, logits, name="linear")


def small_vit(**options: Any) -> keras.Model:
    """Return a ViT of two blocks of width 16 on 8×8 images."""
    return vit(SHAPE, image_size=SIDE, classes=CLASSES, head_bias=-2.0, **options)


def shallow_vit(**options: Any) -> keras.Model:
    """Return a ViT of one block, quicker to trace."""
    shape = dataclasses.replace(SHAPE, depth=1)
    return vit(shape, image_size=SIDE, classes=CLASSES, head_bias=-2.0, **options)


def experiment(make_model: Callable[[], keras.Model] = linear, **changes: Any):
    """Return an experiment of 6 steps of batch 8 on the digits."""
    images, labels = digits()
    parts: dict[str, Any] = {
        "make_model": make_model,
        "make_optimizer": functools.partial(
            Optimizer,
            Adam(),
            weight_decay=head_and_body(head=3.0, body=0.03),
            clip_norm=1.0,
        ),
        "schedule": ReciprocalSqrt(
            1e-2, total_steps=6, warmup_steps=2, cooldown_steps=2, timescale_steps=2
        ),
        "train_data": Arrays(images[:200], labels[:200]),
        "eval_data": EvalArrays(images[200:243], labels[200:243]),
        "batch_size": 8,
    }
    return Experiment(**{**parts, **changes})


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    """Return a model's values by path."""
    values = model.variables
    return {v.path: np.asarray(v.numpy()) for v in values}


def mirrored(replicas: int) -> tf.distribute.Strategy:
    """Return a strategy of that many logical CPUs (tests/conftest.py makes four)."""
    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{number}" for number in range(replicas)],
        # As `make_strategy` does: several strategies live in this process.
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
    assert strategy.num_replicas_in_sync == replicas
    return strategy
