"""Patch embedding, projections, MLP, LayerScale and norm of a Vision Transformer."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vit_scaling import adapters, backend
from vit_scaling.backend import require_tensorflow
from vit_scaling.modeling import noise, tpu
from vit_scaling.modeling.composite import CompositeLayer, Shape

require_tensorflow()

register = keras.saving.register_keras_serializable("vit_scaling")


def xavier_uniform(fan_in: int, fan_out: int, seed: int) -> keras.Initializer:
    """Return U(-l, l) with l = sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010).

    The fans are arguments because Keras would treat the kernel of a head projection,
    (width, heads, head_dim), as a convolution's.
    """
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    return keras.initializers.RandomUniform(-limit, limit, seed=seed)


def gelu(
    x: tf.Tensor, approximate: bool = True, *, jit_compile: bool = False
) -> tf.Tensor:
    """Return x Φ(x) (Hendrycks & Gimpel 2016), with Φ by tanh or by erf.

    The custom gradient keeps only x for the backward pass. Without XLA, TensorFlow's
    own gradient would keep four arrays of x's size.

    Args:
        x: Any shape.
        approximate: By tanh; False: by erf.
        jit_compile: Have XLA make one pass over memory of each direction, where
            TensorFlow's kernels make one for each operation.
    """
    pair = _TANH if approximate else _ERF
    forward, backward = _COMPILED[pair] if jit_compile else pair

    @tf.custom_gradient
    def call(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        return forward(x), lambda upstream: backward(x, upstream)

    return call(x)


_ROOT_2_OVER_PI = math.sqrt(2.0 / math.pi)
_CUBIC = _ROOT_2_OVER_PI * 0.044715


def _gelu_tanh(x: tf.Tensor) -> tf.Tensor:
    return 0.5 * x * (1.0 + tf.tanh(x * (_ROOT_2_OVER_PI + _CUBIC * x * x)))


def _gelu_tanh_gradient(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    a, b = _ROOT_2_OVER_PI, _CUBIC
    square = x * x
    t = tf.tanh(x * (a + b * square))
    slope = 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * (a + 3.0 * b * square)
    return upstream * slope


def _gelu_erf(x: tf.Tensor) -> tf.Tensor:
    return 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5)))


def _gelu_erf_gradient(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    density = math.sqrt(0.5 / math.pi) * tf.exp(-0.5 * x * x)
    return upstream * (0.5 * (1.0 + tf.math.erf(x * math.sqrt(0.5))) + x * density)


# A pair of each form: the function and its gradient.
_TANH, _ERF = (_gelu_tanh, _gelu_tanh_gradient), (_gelu_erf, _gelu_erf_gradient)
_COMPILED = {
    pair: tuple(tf.function(f, jit_compile=True, autograph=False) for f in pair)
    for pair in (_TANH, _ERF)
}


@register
class PatchEmbedding(keras.layers.Layer):
    """Cut images into patches and project each to a token, without padding.

    Args:
        width: Width of a token.
        patch: Side of a patch in pixels.
        seed: Seed of the kernel's initial values.
    """

    def __init__(
        self, width: int, patch: int, *, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.patch = patch
        self.seed = noise.seed_or_random(seed)

    def build(self, images_shape: Shape) -> None:
        """Create the kernel (patch, patch, channels, width) and the bias."""
        channels = images_shape[-1]
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.patch, self.patch, channels, self.width),
            initializer=keras.initializers.LecunNormal(
                seed=noise.seed_for(self.seed, "kernel")
            ),
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.width,), initializer="zeros"
        )

    def compute_output_shape(self, images_shape: Shape) -> Shape:
        """Return (batch, rows * columns, width)."""
        batch, height, width, _ = images_shape
        return batch, (height // self.patch) * (width // self.patch), self.width

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Return tokens (batch, rows * columns, width) of images (batch, h, w, c)."""
        batch, (height, width, channels) = tf.shape(images)[0], images.shape[1:]
        p, rows, columns = self.patch, height // self.patch, width // self.patch
        x = images[:, : rows * p, : columns * p]
        if backend.targets_tpu():
            return tpu.embed_patches(x, tf.convert_to_tensor(self.kernel)) + self.bias
        # One matrix product: a convolution's gradient is several times slower on CPUs.
        x = tf.reshape(x, (batch, rows, p, columns, p * channels))
        x = tf.transpose(x, (0, 1, 3, 2, 4))  # (batch, rows, columns, p, p * channels)
        x = tf.reshape(x, (batch, rows * columns, p * p * channels))
        kernel = tf.reshape(tf.convert_to_tensor(self.kernel), (-1, self.width))
        return tf.einsum("bnp,pd->bnd", x, kernel) + self.bias


@register
class Projection(keras.layers.Layer):
    """A dense kernel and bias of any rank, Xavier-uniform over the flattened matrix.

    Args:
        kernel_shape: Shape of the kernel, e.g. (width, heads, head_dim).
        equation: The product as an einsum, e.g. "bnd,dhk->bnhk".
        bias_rank: How many of the kernel's last axes the bias has.
        bias_stddev: Standard deviation of the bias' initial values.
        bias_gradient: False where no output depends on the bias: its gradient is then
            exactly 0, not rounding noise.
        seed: Seed of the initial values.
    """

    def __init__(
        self,
        kernel_shape: tuple[int, ...],
        equation: str,
        *,
        bias_rank: int = 1,
        bias_stddev: float = 0.0,
        bias_gradient: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_shape = tuple(kernel_shape)
        self.equation = equation
        self.bias_rank = bias_rank
        self.bias_stddev = bias_stddev
        self.bias_gradient = bias_gradient
        self.has_lora = False
        self.seed = noise.seed_or_random(seed)

    def build(self, inputs_shape: Shape | None = None) -> None:
        """Create kernel and bias."""
        bias_shape = self.kernel_shape[-self.bias_rank :]
        fan_out = math.prod(bias_shape)
        fan_in = math.prod(self.kernel_shape) // fan_out
        self.kernel = self.add_weight(
            name="kernel",
            shape=self.kernel_shape,
            initializer=xavier_uniform(
                fan_in, fan_out, noise.seed_for(self.seed, "kernel")
            ),
        )
        self.bias = self.add_weight(
            name="bias",
            shape=bias_shape,
            initializer=keras.initializers.RandomNormal(
                0.0, self.bias_stddev, seed=noise.seed_for(self.seed, "bias")
            )
            if self.bias_stddev
            else "zeros",
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the einsum of inputs and kernel, plus the bias."""
        outputs = self.add_bias(tf.einsum(self.equation, inputs, self.kernel))
        return outputs + self._adapt(inputs) if self.has_lora else outputs

    def add_bias(self, products: tf.Tensor) -> tf.Tensor:
        """Return the outputs from the products of inputs and kernel."""
        bias = self.bias
        if not self.bias_gradient:  # Zeros: after `stop_gradient` alone it is None.
            bias = tf.stop_gradient(bias) + 0.0 * bias
        return products + bias

    def enable_lora(self, rank: int, alpha: float | None = None) -> None:
        """Add an adapter (`vit_scaling.adapters`), like `keras.layers.Dense`.

        Args:
            rank: Rank of the adapter.
            alpha: The adapter is scaled by alpha / rank; None is `rank`.

        Raises:
            ValueError: The layer has an adapter.
        """
        if self.has_lora:
            raise ValueError(f"{self.path!r} has an adapter already.")
        shapes = adapters.adapter_shapes(self.kernel_shape, self.bias_rank, rank)
        fan_in = math.prod(shapes[adapters.A][:-1])
        limit = math.sqrt(6.0 / fan_in)  # He-uniform, as in Keras.
        seed = noise.seed_for(self.seed, adapters.A)
        initial = {
            adapters.A: keras.initializers.RandomUniform(-limit, limit, seed=seed),
            adapters.B: "zeros",
            adapters.SCALE: keras.initializers.Constant((alpha or rank) / rank),
        }
        self._tracker.unlock()
        with contextlib.ExitStack() as scopes:  # So that paths begin as the kernel's.
            for part in self.kernel.path.split("/")[:-2]:
                scopes.enter_context(keras.name_scope(part))
            for name, shape in shapes.items():
                trainable = name != adapters.SCALE
                weight = self.add_weight(
                    name=name,
                    shape=shape,
                    initializer=initial[name],
                    trainable=trainable,
                )
                setattr(self, name, weight)
        self._tracker.lock()
        self.has_lora = True

    def _adapt(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return scale · (inputs A) B, without ever forming A B."""
        operands, outputs = self.equation.split("->")
        x, kernel = operands.split(",")
        split = len(kernel) - self.bias_rank
        low = "".join(axis for axis in x if axis not in kernel[:split]) + "r"
        hidden = tf.einsum(f"{x},{kernel[:split]}r->{low}", inputs, self.lora_a)
        change = tf.einsum(f"{low},r{kernel[split:]}->{outputs}", hidden, self.lora_b)
        return self.lora_scale * change

    def save_own_variables(self, store: Any) -> None:
        """Store kernel, with the adapter merged into it, and bias."""
        values = {v.name: np.asarray(v) for v in self.weights}
        values = adapters.merge({f"own/{n}": value for n, value in values.items()})
        store["0"], store["1"] = values["own/kernel"], values["own/bias"]


@register
class Mlp(CompositeLayer):
    """Two dense layers with a GELU and dropout between them.

    Args:
        mlp_width: Width of the hidden layer.
        dropout: Fraction of hidden units dropped in training.
        approximate_gelu: GELU by tanh, as in the authors' code; False: by erf.
        seed: Seed of initial values and of dropout.
    """

    def __init__(
        self,
        mlp_width: int,
        *,
        dropout: float = 0.0,
        approximate_gelu: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mlp_width = mlp_width
        self.dropout = dropout
        self.approximate_gelu = approximate_gelu
        self.seed = noise.seed_or_random(seed)

    def build(self, tokens_shape: Shape) -> None:
        """Create dense_0 and dense_1, biases normal(1e-6)."""
        width = tokens_shape[-1]
        for name, kernel_shape in (
            ("dense_0", (width, self.mlp_width)),
            ("dense_1", (self.mlp_width, width)),
        ):
            dense = Projection(
                kernel_shape,
                "bnd,df->bnf",
                bias_stddev=1e-6,
                seed=noise.seed_for(self.seed, name),
                name=name,
                dtype=self.dtype_policy,
            )
            self.add_part(dense)

    def call(
        self,
        tokens: tf.Tensor,
        mask_seed: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Return tokens (batch, tokens, width), each transformed separately."""
        # Not where the program is exported: servers may lack XLA.
        compiled = training and backend.has_only_cpus()
        hidden = gelu(self.dense_0(tokens), self.approximate_gelu, jit_compile=compiled)
        if training and self.dropout:
            site = noise.seed_for(self.seed, "dropout")
            hidden = noise.dropout(hidden, self.dropout, mask_seed, site)
        return self.dense_1(hidden)


@register
class LayerScale(keras.layers.Layer):
    """Multiply each channel by a trained factor (Touvron et al. 2021).

    Args:
        initial: Initial value of every factor.
    """

    def __init__(self, initial: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, tokens_shape: Shape) -> None:
        """Create gamma (width,)."""
        self.gamma = self.add_weight(
            name="gamma",
            shape=tokens_shape[-1:],
            initializer=keras.initializers.Constant(self.initial),
        )

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        """Return the tokens' shape."""
        return tokens_shape

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return tokens * gamma."""
        return tokens * self.gamma


@register
class LayerNorm(keras.layers.LayerNormalization):
    """Layer normalisation, with a separate implementation for TPUs."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the inputs normalised over the channels; statistics in float32."""
        if not backend.targets_tpu():
            return super().call(inputs)
        return tpu.layer_norm(
            inputs,
            tf.cast(self.gamma, tf.float32),
            tf.cast(self.beta, tf.float32),
            self.epsilon,
        )


def layer_norm(name: str, epsilon: float, dtype: Any) -> keras.layers.Layer:
    """Return a layer normalisation over the channels; statistics in float32."""
    return LayerNorm(epsilon=epsilon, name=name, dtype=dtype)
