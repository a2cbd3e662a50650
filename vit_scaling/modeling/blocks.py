"""The pre-norm encoder block: attention and MLP, each added to the tokens."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import keras
import tensorflow as tf

from vit_scaling import backend
from vit_scaling.modeling import noise
from vit_scaling.modeling.attention import Attention
from vit_scaling.modeling.composite import CompositeLayer, Shape
from vit_scaling.modeling.layers import (
    LayerScale,
    Mlp,
    layer_norm,
    register,
)
from vit_scaling.modeling.rematerialization import recomputed_parts


@dataclasses.dataclass(frozen=True)
class BlockOptions:
    """Options of an encoder block; the defaults are the paper's.

    Attributes:
        dropout: Fraction of activations dropped in training after attention, inside
            the MLP and after it.
        stochastic_depth: Fraction of examples that skip a branch in training.
        rematerialize: Part recomputed in the backward pass: "none", "all" (only the
            block's input is kept), "attention" or "mlp" (that branch).
        approximate_gelu: GELU by tanh; False: by erf.
        norm_epsilon: Epsilon of the norms.
        layer_scale: Initial value of LayerScale's factors; None leaves them out.
        qk_norm: Normalise queries and keys per head.
        attention_chunk: Number of queries that attend at a time; None: all.

    Raises:
        ValueError: `rematerialize` is not one of these.
    """

    dropout: float = 0.0
    stochastic_depth: float = 0.0
    rematerialize: str = "none"
    approximate_gelu: bool = True
    norm_epsilon: float = 1e-6
    layer_scale: float | None = None
    qk_norm: bool = False
    attention_chunk: int | None = None

    def __post_init__(self) -> None:
        recomputed_parts(self.rematerialize, depth=1)


@register
class EncoderBlock(CompositeLayer):
    """x += attention(norm(x)); x += mlp(norm(x)).

    Args:
        heads: Attention heads.
        mlp_width: Width of the MLP's hidden layer.
        options: Dropout, rematerialisation and so on; default `BlockOptions()`.
        seed: Seed of initial values and masks.
    """

    def __init__(
        self,
        heads: int,
        mlp_width: int,
        options: BlockOptions | None = None,
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads = heads
        self.mlp_width = mlp_width
        self.options = options or BlockOptions()
        self.seed = noise.seed_or_random(seed)

    def get_config(self) -> dict[str, Any]:
        """Return the config, with the options as keys of their own."""
        config = super().get_config()
        options = config.pop("options")
        return {**config, **dataclasses.asdict(options)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "EncoderBlock":
        """Return the block of a config."""
        names = {field.name for field in dataclasses.fields(BlockOptions)}
        options = {name: config[name] for name in names & config.keys()}
        # Early versions wrote True and False.
        if isinstance(again := options.get("rematerialize"), bool):
            options["rematerialize"] = "all" if again else "none"
        rest = {name: config[name] for name in config.keys() - names}
        return super().from_config({**rest, "options": BlockOptions(**options)})

    def build(self, tokens_shape: Shape) -> None:
        """Create the two branches."""
        options, dtype = self.options, self.dtype_policy
        attention_norm = layer_norm("attention_norm", options.norm_epsilon, dtype)
        attention = Attention(
            self.heads,
            qk_norm=options.qk_norm,
            norm_epsilon=options.norm_epsilon,
            chunk=options.attention_chunk,
            seed=noise.seed_for(self.seed, "attention"),
            name="attention",
            dtype=dtype,
        )
        mlp_norm = layer_norm("mlp_norm", options.norm_epsilon, dtype)
        mlp = Mlp(
            self.mlp_width,
            dropout=options.dropout,
            approximate_gelu=options.approximate_gelu,
            seed=noise.seed_for(self.seed, "mlp"),
            name="mlp",
            dtype=dtype,
        )
        parts = [attention_norm, attention, mlp_norm, mlp]
        if (initial := options.layer_scale) is not None:
            parts += [
                LayerScale(initial, name=name, dtype=dtype)
                for name in ("attention_scale", "mlp_scale")
            ]
        for part in parts:
            self.add_part(part, tokens_shape)

    def compute_output_shape(
        self, tokens_shape: Shape, mask_seed_shape: Shape | None = None
    ) -> Shape:
        """Return the tokens' shape: with it a model is assembled without tracing."""
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
            mask_seed: Output of `noise.MaskSeed`, needed to drop anything.
            training: Whether dropout and stochastic depth are applied.
        """
        if not (training and backend.shares_programs()):
            return self._transform(tokens, mask_seed, training)
        program = backend.share_program(self._program_key(), self._transform)
        weights = [tf.convert_to_tensor(variable.value) for variable in self.variables]
        return program(tokens, mask_seed, True, weights)

    def _program_key(self) -> Hashable:
        """Return what the program depends on, apart from its arguments."""
        options = self.options
        draws_masks = options.dropout or options.stochastic_depth
        weights = tuple((v.name, tuple(v.shape), v.trainable) for v in self.variables)
        seed = self.seed if draws_masks else None
        return self.heads, options, self.dtype_policy.name, seed, weights

    def _transform(
        self,
        tokens: tf.Tensor,
        mask_seed: tf.Tensor | None,
        training: bool,
        weights: Sequence[tf.Tensor] = (),
    ) -> tf.Tensor:
        """Return the tokens, plus attention, plus MLP.

        Args:
            tokens: (batch, tokens, width).
            mask_seed: See `call`.
            training: See `call`.
            weights: Values in place of the block's own variables, if any.
        """

        def attend(x: tf.Tensor) -> tf.Tensor:
            y = self.attention(self.attention_norm(x))
            return x + self._branch(y, "attention", mask_seed, training)

        def transform(x: tf.Tensor) -> tf.Tensor:
            y = self.mlp(self.mlp_norm(x), mask_seed, training=training)
            return x + self._branch(y, "mlp", mask_seed, training)

        def run(function: Callable, x: tf.Tensor, *, recompute: bool) -> tf.Tensor:
            def with_weights(x: tf.Tensor, *weights: tf.Tensor) -> tf.Tensor:
                if not weights:
                    return function(x)
                values = [
                    (variable, value if variable.trainable else tf.stop_gradient(value))
                    for variable, value in zip(self.variables, weights, strict=True)
                ]
                with keras.StatelessScope(values):
                    return function(x)

            # Recomputed functions have gradients for arguments and variables only.
            call = tf.recompute_grad(with_weights) if recompute else with_weights
            return call(x, *weights)

        recomputed = self.options.rematerialize if training else "none"
        if recomputed == "all":
            return run(lambda x: transform(attend(x)), tokens, recompute=True)
        x = run(attend, tokens, recompute=recomputed == "attention")
        return run(transform, x, recompute=recomputed == "mlp")

    def _branch(
        self, y: tf.Tensor, name: str, mask_seed: tf.Tensor | None, training: bool
    ) -> tf.Tensor:
        """Apply dropout, LayerScale and stochastic depth to a branch's output."""
        options = self.options
        if training and options.dropout:
            site = noise.seed_for(self.seed, f"{name}_dropout")
            y = noise.dropout(y, options.dropout, mask_seed, site)
        if options.layer_scale is not None:
            y = (self.attention_scale if name == "attention" else self.mlp_scale)(y)
        if training and options.stochastic_depth:
            site = noise.seed_for(self.seed, f"{name}_depth")
            y = noise.dropout(
                y, options.stochastic_depth, mask_seed, site, per_example=True
            )
        return y
