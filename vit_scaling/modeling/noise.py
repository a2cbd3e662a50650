"""Seeds and dropout masks that are reproducible and differ by step and replica."""
# SPDX-License-Identifier: Apache-2.0

import random
import zlib
from typing import Any

import keras
import tensorflow as tf


def seed_or_random(seed: int | None) -> int:
    """Return the seed, or one that `keras.utils.set_random_seed` decides for None."""
    return random.randrange(2**31) if seed is None else seed


def seed_for(seed: int, name: str) -> int:
    """Return the seed of the part `name` of an object with the seed `seed`.

    Example:
        >>> seed_for(0, "kernel") == seed_for(0, "bias")
        False
    """
    return zlib.crc32(f"{seed}/{name}".encode()) & 0x7FFFFFFF


@keras.saving.register_keras_serializable("vit_scaling")
class MaskSeed(keras.layers.Layer):
    """One seed per training call and replica, from which all masks are drawn.

    Keras' SeedGenerator gives all replicas the same masks. Here the seed is derived
    from `seed`, a counter and the replica's number. The counter is a variable of the
    model, `mask_seed/step`, and is saved in checkpoints: a resumed run draws the same
    masks as an uninterrupted one. There is one counter for the whole model, so that a
    block recomputed in the backward pass (rematerialisation) uses the same seed.

    Args:
        seed: Seed of the run.
    """

    def __init__(self, *, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed

    def build(self, images_shape: tuple[int | None, ...]) -> None:
        """Create the counter."""
        # No aggregation: each replica updates its own copy, all by the same amount.
        # Aggregated updates are not allowed inside a loop over micro-batches.
        self.step = self.add_weight(
            name="step", shape=(), dtype="int64", initializer="zeros", trainable=False
        )

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return a stateless seed, int32 (2,), which changes at each training call."""
        base = tf.constant([self.seed & 0x7FFFFFFF, 0x5EED], tf.int32)
        if not training:
            return base
        context = tf.distribute.get_replica_context()
        replica = 0 if context is None else context.replica_id_in_sync_group
        step = tf.convert_to_tensor(self.step.value)
        self.step.assign_add(tf.ones((), tf.int64))
        return fold_in(fold_in(base, tf.cast(step, tf.int32)), replica)

    def compute_output_spec(
        self, images: keras.KerasTensor, training: bool = False
    ) -> keras.KerasTensor:
        """Return the spec of the seed; does not count."""
        return keras.KerasTensor((2,), dtype="int32")


@keras.saving.register_keras_serializable("vit_scaling")
class Dropout(keras.layers.Layer):
    """Dropout of tokens; the mask seed is the second input.

    Args:
        rate: Fraction dropped in training.
        seed: Seed of this layer, combined with the mask seed.
    """

    def __init__(self, rate: float, *, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate
        self.seed = seed

    def compute_output_shape(
        self, tokens_shape: tuple[int | None, ...], mask_seed_shape: tuple[int, ...]
    ) -> tuple[int | None, ...]:
        """Return the tokens' shape."""
        return tokens_shape

    def call(
        self, tokens: tf.Tensor, mask_seed: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Return tokens (batch, tokens, width)."""
        if not training:
            return tokens
        return dropout(tokens, self.rate, mask_seed, self.seed)


def fold_in(seed: tf.Tensor, number: int | tf.Tensor) -> tf.Tensor:
    """Return a stateless seed derived from a stateless seed and a number."""
    return tf.random.experimental.stateless_fold_in(seed, number)


def dropout(
    tokens: tf.Tensor,
    rate: float,
    mask_seed: tf.Tensor,
    site: int,
    *,
    per_example: bool = False,
) -> tf.Tensor:
    """Set a fraction `rate` of the values to 0 and divide the others by 1 - rate.

    Args:
        tokens: (batch, ...).
        rate: Fraction to drop, in [0, 1).
        mask_seed: Output of `MaskSeed`.
        site: Number that is unique to each use in a model.
        per_example: Drop whole examples: stochastic depth (Huang et al. 2016).
    """
    shape = tf.shape(tokens)
    if per_example:
        rest = tf.ones((tokens.shape.rank - 1,), tf.int32)
        shape = tf.concat([shape[:1], rest], axis=0)
    uniform = tf.random.stateless_uniform(shape, fold_in(mask_seed, site))
    keep = tf.cast(uniform >= rate, tokens.dtype)
    return tokens * keep * tf.cast(1.0 / (1.0 - rate), tokens.dtype)
