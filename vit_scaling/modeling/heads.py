"""From tokens to one vector: class token, average and attention pooling (§3.2)."""
# SPDX-License-Identifier: Apache-2.0

import difflib
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from vit_scaling.modeling import noise
from vit_scaling.modeling.attention import Attention
from vit_scaling.modeling.layers import (
    Mlp,
    Shape,
    layer_norm,
    register,
    xavier_uniform,
)
from vit_scaling.modeling.shapes import ViTShape

HEADS = ("token", "gap", "map", "none")
HeadMaker = Callable[[ViTShape], keras.layers.Layer]


@register
class TokenHead(keras.layers.Layer):
    """Take the class token: the first one."""

    uses_class_token = True

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        """Return (batch, width)."""
        return tokens_shape[0], tokens_shape[2]

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return (batch, width)."""
        return tokens[:, 0]


@register
class GapHead(keras.layers.Layer):
    """Average all tokens (global average pooling)."""

    uses_class_token = False

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        """Return (batch, width)."""
        return tokens_shape[0], tokens_shape[2]

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return (batch, width)."""
        mean = tf.reduce_mean(tf.cast(tokens, tf.float32), axis=1)
        return tf.cast(mean, tokens.dtype)


@register
class MapHead(keras.layers.Layer):
    """Multi-head attention pooling: a trained probe asks all tokens (§3.2).

    y = attention(probe, tokens); y + mlp(norm(y)). The probe is not normalised and
    there is no residual around the attention, as in the authors' code.

    Args:
        heads: Attention heads: the model's.
        mlp_width: Width of the MLP's hidden layer: the model's.
        approximate_gelu: GELU by tanh.
        norm_epsilon: Epsilon of the norm.
        seed: Seed of the initial values.
    """

    uses_class_token = False

    def __init__(
        self,
        heads: int,
        mlp_width: int,
        *,
        approximate_gelu: bool = True,
        norm_epsilon: float = 1e-6,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads = heads
        self.mlp_width = mlp_width
        self.approximate_gelu = approximate_gelu
        self.norm_epsilon = norm_epsilon
        self.seed = seed

    def build(self, tokens_shape: Shape) -> None:
        """Create probe (1, 1, width), attention, norm and MLP."""
        width = tokens_shape[-1]
        self.probe = self.add_weight(
            name="probe",
            shape=(1, 1, width),
            initializer=xavier_uniform(1, width, noise.seed_for(self.seed, "probe")),
        )
        self.attention = Attention(
            self.heads,
            seed=noise.seed_for(self.seed, "attention"),
            name="attention",
            dtype=self.dtype_policy,
        )
        self.norm = layer_norm("norm", self.norm_epsilon, self.dtype_policy)
        self.mlp = Mlp(
            self.mlp_width,
            approximate_gelu=self.approximate_gelu,
            seed=noise.seed_for(self.seed, "mlp"),
            name="mlp",
            dtype=self.dtype_policy,
        )
        for layer in (self.attention, self.norm, self.mlp):
            layer.build((None, 1, width))

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        """Return (batch, width)."""
        return tokens_shape[0], tokens_shape[2]

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return (batch, width)."""
        probe = tf.convert_to_tensor(self.probe)
        probe = tf.broadcast_to(probe, (tf.shape(tokens)[0], 1, probe.shape[-1]))
        y = self.attention(tokens, probe)  # (batch, 1, width)
        y = y + self.mlp(self.norm(y))
        return tf.squeeze(y, axis=1)  # (batch, width)


def make_head(
    head: str | HeadMaker,
    shape: ViTShape,
    options: Callable[[str], dict[str, Any]],
    *,
    norm_epsilon: float = 1e-6,
    approximate_gelu: bool = True,
) -> keras.layers.Layer | None:
    """Return the pooling layer that a name or a maker stands for; None for "none".

    Args:
        head: "token", "gap", "map", "none", or a function from the shape to a layer
            that turns tokens (batch, tokens, width) into (batch, width).
        shape: The model's shape.
        options: From a layer's name to its name, dtype and seed.
        norm_epsilon: Epsilon of the MAP head's norm.
        approximate_gelu: GELU of the MAP head by tanh.

    Raises:
        ValueError: No head has this name.
        TypeError: A maker gave no Keras layer.
    """
    if callable(head):
        layer = head(shape)
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(f"`head` must give a Keras layer; it gave {layer!r}.")
        return layer
    if head not in HEADS:
        near = difflib.get_close_matches(str(head), HEADS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"`head` must be one of {', '.join(HEADS)}, or a function from a shape to "
            f"a layer; received {head!r}. Did you mean {near!r}?"
        )
    if head == "none":
        return None
    if head == "map":
        return MapHead(
            shape.heads,
            shape.mlp_width,
            norm_epsilon=norm_epsilon,
            approximate_gelu=approximate_gelu,
            **options("map_head"),
        )
    layer_class = TokenHead if head == "token" else GapHead
    return layer_class(name=f"{head}_head", dtype=options("")["dtype"])
