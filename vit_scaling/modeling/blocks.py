"""The pre-norm encoder block: attention and MLP, each added to the tokens."""
# SPDX-License-Identifier: Apache-2.0

from typing import Any

import keras
import tensorflow as tf

from vit_scaling.modeling import noise
from vit_scaling.modeling.attention import Attention
from vit_scaling.modeling.layers import (
    LayerScale,
    Mlp,
    Shape,
    layer_norm,
    register,
)
from vit_scaling.modeling.rematerialization import recomputed_parts


@register
class EncoderBlock(keras.layers.Layer):
    """x += attention(norm(x)); x += mlp(norm(x)).

    Args:
        heads: Attention heads.
        mlp_width: Width of the MLP's hidden layer.
        dropout: Share dropped after attention, inside and after the MLP, in training.
        stochastic_depth: Share of examples for which a branch is left out, in training.
        rematerialize: What is computed again in the backward pass: "none", "all" (only
            the block's input is kept), "attention" or "mlp" (that branch). True and
            False, as older files have them, are "all" and "none".
        approximate_gelu: GELU by tanh.
        norm_epsilon: Epsilon of the norms.
        layer_scale: First value of the branches' factors; None leaves them out.
        qk_norm: Normalise queries and keys.
        seed: Seed of initial values and masks.
    """

    def __init__(
        self,
        heads: int,
        mlp_width: int,
        *,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        rematerialize: str | bool = "none",
        approximate_gelu: bool = True,
        norm_epsilon: float = 1e-6,
        layer_scale: float | None = None,
        qk_norm: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads = heads
        self.mlp_width = mlp_width
        self.dropout = dropout
        self.stochastic_depth = stochastic_depth
        self.rematerialize = {True: "all", False: "none"}.get(
            rematerialize,  # type: ignore[arg-type]
            str(rematerialize),
        )
        recomputed_parts(self.rematerialize, depth=1)
        self.approximate_gelu = approximate_gelu
        self.norm_epsilon = norm_epsilon
        self.layer_scale = layer_scale
        self.qk_norm = qk_norm
        self.seed = seed

    def build(self, tokens_shape: Shape) -> None:
        """Create the two branches."""
        dtype = self.dtype_policy
        self.attention_norm = layer_norm("attention_norm", self.norm_epsilon, dtype)
        self.attention = Attention(
            self.heads,
            qk_norm=self.qk_norm,
            norm_epsilon=self.norm_epsilon,
            seed=noise.seed_for(self.seed, "attention"),
            name="attention",
            dtype=dtype,
        )
        self.mlp_norm = layer_norm("mlp_norm", self.norm_epsilon, dtype)
        self.mlp = Mlp(
            self.mlp_width,
            dropout=self.dropout,
            approximate_gelu=self.approximate_gelu,
            seed=noise.seed_for(self.seed, "mlp"),
            name="mlp",
            dtype=dtype,
        )
        parts = [self.attention_norm, self.attention, self.mlp_norm, self.mlp]
        if self.layer_scale is not None:
            for name in ("attention_scale", "mlp_scale"):
                setattr(
                    self, name, LayerScale(self.layer_scale, name=name, dtype=dtype)
                )
                parts.append(getattr(self, name))
        for part in parts:
            part.build(tokens_shape)

    def compute_output_shape(
        self, tokens_shape: Shape, mask_seed_shape: Shape | None = None
    ) -> Shape:
        """Return the tokens' shape; so a deep model is assembled without tracing."""
        return tokens_shape

    def call(
        self,
        tokens: tf.Tensor,
        mask_seed: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Return tokens (batch, tokens, width).

        Args:
            tokens: (batch, tokens, width).
            mask_seed: What `noise.MaskSeed` gave; needed to drop anything.
            training: Whether dropout and stochastic depth act.
        """

        def attend(x: tf.Tensor) -> tf.Tensor:
            y = self.attention(self.attention_norm(x))
            return x + self._branch(y, "attention", mask_seed, training)

        def transform(x: tf.Tensor) -> tf.Tensor:
            y = self.mlp(self.mlp_norm(x), mask_seed, training=training)
            return x + self._branch(y, "mlp", mask_seed, training)

        again = self.rematerialize if training else "none"
        if again == "all":
            return tf.recompute_grad(lambda x: transform(attend(x)))(tokens)
        if again == "attention":
            attend = tf.recompute_grad(attend)
        elif again == "mlp":
            transform = tf.recompute_grad(transform)
        return transform(attend(tokens))

    def _branch(
        self, y: tf.Tensor, name: str, mask_seed: tf.Tensor | None, training: bool
    ) -> tf.Tensor:
        """Return a branch's output, dropped and scaled as the options say."""
        if training and self.dropout:
            site = noise.seed_for(self.seed, f"{name}_dropout")
            y = noise.dropout(y, self.dropout, mask_seed, site)
        if self.layer_scale is not None:
            y = getattr(self, f"{name}_scale")(y)
        if training and self.stochastic_depth:
            site = noise.seed_for(self.seed, f"{name}_depth")
            y = noise.dropout(
                y, self.stochastic_depth, mask_seed, site, per_example=True
            )
        return y
