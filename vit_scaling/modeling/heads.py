"""Pooling heads: class token, average and attention pooling (§3.2)."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from vit_scaling.modeling import noise
from vit_scaling.modeling.attention import Attention
from vit_scaling.modeling.composite import CompositeLayer, Shape
from vit_scaling.modeling.head_specs import head_layer_name, head_named
from vit_scaling.modeling.layers import (
    Mlp,
    layer_norm,
    register,
    xavier_uniform,
)
from vit_scaling.modeling.shapes import ViTShape

HeadMaker = Callable[[ViTShape], keras.layers.Layer]


class PoolingHead(keras.layers.Layer):
    """Base of the pooling heads: from (batch, tokens, width) to (batch, width)."""

    uses_class_token = False

    @classmethod
    def for_model(
        cls,
        shape: ViTShape,
        *,
        norm_epsilon: float,
        approximate_gelu: bool,
        seed: int,
        **kwargs: Any,
    ) -> "PoolingHead":
        """Return the head of a model with these options; here it needs none."""
        return cls(**kwargs)

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        """Return (batch, width)."""
        return tokens_shape[0], tokens_shape[2]


@register
class TokenHead(PoolingHead):
    """Return the class token, which is the first."""

    uses_class_token = True

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return (batch, width)."""
        return tokens[:, 0]


@register
class GapHead(PoolingHead):
    """Average all tokens (global average pooling)."""

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return (batch, width)."""
        mean = tf.reduce_mean(tf.cast(tokens, tf.float32), axis=1)
        return tf.cast(mean, tokens.dtype)


@register
class MapHead(CompositeLayer, PoolingHead):
    """Multi-head attention pooling: a trained probe attends to all tokens (§3.2).

    y = attention(probe, tokens); y + mlp(norm(y)). The probe is not normalised and
    there is no residual around the attention, as in the authors' code.

    Args:
        heads: Attention heads.
        mlp_width: Width of the MLP's hidden layer.
        approximate_gelu: GELU by tanh.
        norm_epsilon: Epsilon of the norm.
        seed: Seed of the initial values.
    """

    def __init__(
        self,
        heads: int,
        mlp_width: int,
        *,
        approximate_gelu: bool = True,
        norm_epsilon: float = 1e-6,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads = heads
        self.mlp_width = mlp_width
        self.approximate_gelu = approximate_gelu
        self.norm_epsilon = norm_epsilon
        self.seed = noise.seed_or_random(seed)

    @classmethod
    def for_model(cls, shape: ViTShape, **options: Any) -> "MapHead":
        """Return a head with the attention heads and MLP width of the encoder."""
        return cls(shape.heads, shape.mlp_width, **options)

    def build(self, tokens_shape: Shape) -> None:
        """Create probe (1, 1, width), attention, norm and MLP."""
        width = tokens_shape[-1]
        self.probe = self.add_weight(
            name="probe",
            shape=(1, 1, width),
            initializer=xavier_uniform(1, width, noise.seed_for(self.seed, "probe")),
        )
        attention = Attention(
            self.heads,
            seed=noise.seed_for(self.seed, "attention"),
            name="attention",
            dtype=self.dtype_policy,
        )
        norm = layer_norm("norm", self.norm_epsilon, self.dtype_policy)
        mlp = Mlp(
            self.mlp_width,
            approximate_gelu=self.approximate_gelu,
            seed=noise.seed_for(self.seed, "mlp"),
            name="mlp",
            dtype=self.dtype_policy,
        )
        for part in (attention, norm, mlp):
            self.add_part(part, (None, 1, width))

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return (batch, width)."""
        probe = tf.convert_to_tensor(self.probe)
        probe = tf.broadcast_to(probe, (tf.shape(tokens)[0], 1, probe.shape[-1]))
        y = self.attention(tokens, probe)  # (batch, 1, width)
        y = y + self.mlp(self.norm(y))
        return tf.squeeze(y, axis=1)  # (batch, width)


# Name in `head_specs.HEADS` -> layer; "none" has no layer.
HEAD_LAYERS: dict[str, type[PoolingHead]] = {
    "map": MapHead,
    "gap": GapHead,
    "token": TokenHead,
}


def make_head(
    head: str | HeadMaker,
    shape: ViTShape,
    *,
    norm_epsilon: float = 1e-6,
    approximate_gelu: bool = True,
    dtype: str = "float32",
    seed: int | None = None,
) -> keras.layers.Layer | None:
    """Return a model's pooling layer, or None for "none".

    Args:
        head: A name in `head_specs.HEADS`, or a function from the shape to a layer
            that turns tokens (batch, tokens, width) into (batch, width).
        shape: The model's shape.
        norm_epsilon: Epsilon of the head's norm.
        approximate_gelu: GELU by tanh.
        dtype: Dtype policy of the layer.
        seed: Seed of the model; None takes it from Keras' global generator.

    Raises:
        ValueError: No head has this name.
        TypeError: The function returned no Keras layer.
    """
    if callable(head):
        layer = head(shape)
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(f"`head` must return a Keras layer; it returned {layer!r}.")
        return layer
    head_named(head)  # Checks the name.
    if head == "none":
        return None
    name = head_layer_name(head)
    seed = noise.seed_or_random(seed)
    return HEAD_LAYERS[head].for_model(
        shape,
        norm_epsilon=norm_epsilon,
        approximate_gelu=approximate_gelu,
        seed=noise.seed_for(seed, name),
        name=name,
        dtype=dtype,
    )
