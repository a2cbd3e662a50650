"""Implementations of layers that need the least memory on a TPU.

The results differ from those for CPUs only by rounding. `backend.targets_tpu` selects
the implementation; README.md of `preflight` records the memory saved by each.
"""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable

import tensorflow as tf


@tf.custom_gradient
def embed_patches(
    images: tf.Tensor, kernel: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
    """Return the patches' tokens (batch, rows * columns, width), by a convolution.

    A product of reshaped patches, which is faster on a CPU, has the tokens outermost in
    memory: every product of the blocks would copy them. The kernel's gradient is still
    such a product, since a convolution's gradient would keep the images in another
    layout, padded to more than twice their size.

    Args:
        images: (batch, height, width, channels), cut to whole patches.
        kernel: (patch, patch, channels, width).
    """
    side = kernel.shape[0]
    x = tf.nn.conv2d(images, kernel, side, "VALID")
    rows, columns, width = x.shape[1:]
    batch = tf.shape(x)[0]

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        d_x = tf.reshape(upstream, (batch, rows, columns, width))
        cut = tf.reshape(images, (batch, rows, side, columns, -1))
        d_kernel = tf.einsum("brpcx,brcd->pxd", cut, d_x)
        d_images = tf.nn.conv2d_transpose(d_x, kernel, tf.shape(images), side, "VALID")
        return d_images, tf.reshape(d_kernel, kernel.shape)

    return tf.reshape(x, (batch, rows * columns, width)), gradient


def layer_norm(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tf.Tensor:
    """Return x normalised over the last axis, in x's dtype.

    The variance is the mean of squares minus the square of the mean, computed in
    float32 in one pass, as in the authors' code.

    Args:
        x: (…, width).
        gamma: (width,), float32.
        beta: (width,), float32.
        epsilon: Added to the variance.
    """
    wide = tf.cast(x, tf.float32)
    mean = tf.reduce_mean(wide, axis=-1, keepdims=True)
    squares = tf.reduce_mean(wide * wide, axis=-1, keepdims=True)
    variance = tf.maximum(squares - mean * mean, 0.0)
    scale = tf.math.rsqrt(variance + epsilon) * gamma
    return tf.cast((wide - mean) * scale + beta, x.dtype)


@tf.custom_gradient
def attend(
    q: tf.Tensor, k: tf.Tensor, v: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, ...]]]:
    """Return softmax(q kᵀ) v; see `attention.attend`, which scales q.

    TensorFlow's gradient of a softmax sums weights times their gradients over the
    tokens, a pass over two large arrays. The same sum is the output times its gradient,
    summed over head_dim (Dao et al. 2022, App. B.2), which are two small arrays. With
    it, the gradients of weights and logits are computed in one pass. Maximum and sum of
    a row are kept as one number, the logarithm of its sum.
    """
    logits = tf.cast(tf.einsum("bqhk,bnhk->bhqn", q, k), tf.float32)
    log_sums = tf.reduce_logsumexp(logits, axis=-1, keepdims=True)
    weights = tf.exp(logits - log_sums)  # (batch, heads, queries, tokens)
    rounded = tf.cast(weights, v.dtype)
    out = tf.einsum("bhqn,bnhk->bqhk", rounded, v)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
        products = tf.cast(out, tf.float32) * tf.cast(upstream, tf.float32)
        sums = tf.reduce_sum(products, axis=-1)  # (batch, queries, heads)
        sums = tf.transpose(sums, (0, 2, 1))[..., None]  # (batch, heads, queries, 1)
        d_weights = tf.einsum("bqhk,bnhk->bhqn", upstream, v)
        d_logits = weights * (tf.cast(d_weights, tf.float32) - sums)
        d_logits = tf.cast(d_logits, q.dtype)
        return (
            tf.einsum("bhqn,bnhk->bqhk", d_logits, k),
            tf.einsum("bhqn,bqhk->bnhk", d_logits, q),
            tf.einsum("bhqn,bqhk->bnhk", rounded, upstream),
        )

    return out, gradient
