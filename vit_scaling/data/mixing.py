"""Mixup and CutMix: mix the images and labels of a batch.

All random numbers are drawn from a given seed. Keras' layers of the same names have
state, so their batches would depend on the batches before them.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import tensorflow as tf

from vit_scaling.argument_types import PositiveFloat, check_fields


def _sample_beta(seed: tf.Tensor, alpha: float) -> tf.Tensor:
    """Draw one number of Beta(alpha, alpha), float32: a ratio of two gammas."""
    gammas = tf.random.stateless_gamma([2], seed, alpha)
    return gammas[0] / tf.maximum(gammas[0] + gammas[1], 1e-20)


@dataclasses.dataclass(frozen=True)
class _Mixing:
    alpha: PositiveFloat

    def __post_init__(self) -> None:
        check_fields(self)


@dataclasses.dataclass(frozen=True)
class Mixup(_Mixing):
    """Average each image and its labels with the next one of the batch.

    images ← a·images + (1 - a)·next, labels likewise, with a = max(b, 1 - b) for one
    b ~ Beta(alpha, alpha) per batch.

    Args:
        alpha: Parameter of the Beta distribution; 0.2 as in the paper that proposed it.

    References: Zhang et al. 2018, "mixup".
    """

    alpha: PositiveFloat = 0.2

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return mixed images and labels, both float32 of their shapes."""
        weight = _sample_beta(seed, self.alpha)
        weight = tf.maximum(weight, 1.0 - weight)

        def mix(values: tf.Tensor) -> tf.Tensor:
            return weight * values + (1.0 - weight) * tf.roll(values, 1, axis=0)

        return mix(images), mix(labels)


@dataclasses.dataclass(frozen=True)
class CutMix(_Mixing):
    """Replace a box of each image by the same box of the next one of the batch.

    The box has about the fraction 1 - b of the image's area, b ~ Beta(alpha, alpha),
    and its centre anywhere. Labels mix by the area that was actually replaced.

    Args:
        alpha: Parameter of the Beta distribution; 1.0 as in the paper that proposed it.

    References: Yun et al. 2019, "CutMix".
    """

    alpha: PositiveFloat = 1.0

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return mixed images and labels, both float32 of their shapes."""
        seeds = tf.random.split(seed, 3)
        side = tf.sqrt(1.0 - _sample_beta(seeds[0], self.alpha))
        rows = _stripe(tf.shape(images)[1], side, seeds[1])
        columns = _stripe(tf.shape(images)[2], side, seeds[2])
        box = (rows[:, None] & columns[None, :])[None, :, :, None]  # (1, h, w, 1)
        replaced = tf.reduce_mean(tf.cast(box, tf.float32))
        images = tf.where(box, tf.roll(images, 1, axis=0), images)
        next_labels = tf.roll(labels, 1, axis=0)
        return images, (1.0 - replaced) * labels + replaced * next_labels


def _stripe(length: tf.Tensor, fraction: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return whether each of `length` pixels is in a stripe with a random centre."""
    centre = tf.random.stateless_uniform([], seed, alg="philox")
    length = tf.cast(length, tf.float32)
    return tf.abs((tf.range(length) + 0.5) / length - centre) < fraction / 2
