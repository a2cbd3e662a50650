"""Tokens that are not patches: the class token and registers."""
# SPDX-License-Identifier: Apache-2.0

from typing import Any

import keras
import tensorflow as tf

from vit_scaling.modeling import noise
from vit_scaling.modeling.layers import Shape, register


@register
class ClassToken(keras.layers.Layer):
    """Prepend one trained token, initially 0 and without a position."""

    def build(self, tokens_shape: Shape) -> None:
        """Create token (1, 1, width)."""
        self.token = self.add_weight(
            name="token", shape=(1, 1, tokens_shape[-1]), initializer="zeros"
        )

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        """Return (batch, 1 + tokens, width)."""
        return tokens_shape[0], tokens_shape[1] + 1, tokens_shape[2]

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return (batch, 1 + tokens, width)."""
        return tf.concat([_repeat_for_each_example(self.token, tokens), tokens], axis=1)


@register
class RegisterTokens(keras.layers.Layer):
    """Append trained tokens (Darcet et al. 2024); not in the paper.

    Args:
        count: Number of registers.
        seed: Seed of the initial values.
    """

    def __init__(self, count: int, *, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = count
        self.seed = noise.seed_or_random(seed)

    def build(self, tokens_shape: Shape) -> None:
        """Create tokens (1, count, width), normal with standard deviation 0.02."""
        self.tokens = self.add_weight(
            name="tokens",
            shape=(1, self.count, tokens_shape[-1]),
            initializer=keras.initializers.RandomNormal(
                0.0, 0.02, seed=noise.seed_for(self.seed, "tokens")
            ),
        )

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        """Return (batch, tokens + count, width)."""
        return tokens_shape[0], tokens_shape[1] + self.count, tokens_shape[2]

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return (batch, tokens + count, width)."""
        return tf.concat(
            [tokens, _repeat_for_each_example(self.tokens, tokens)], axis=1
        )


@register
class DropRegisters(keras.layers.Layer):
    """Remove the registers, which no head uses.

    Args:
        count: Number of registers.
    """

    def __init__(self, count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = count

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        """Return (batch, tokens - count, width)."""
        return tokens_shape[0], tokens_shape[1] - self.count, tokens_shape[2]

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return (batch, tokens - count, width)."""
        return tokens[:, : -self.count]


def _repeat_for_each_example(variable: keras.Variable, tokens: tf.Tensor) -> tf.Tensor:
    """Return the variable (1, count, width), repeated for each example."""
    value = tf.convert_to_tensor(variable)
    shape = (tf.shape(tokens)[0], value.shape[1], value.shape[2])
    return tf.broadcast_to(value, shape)
