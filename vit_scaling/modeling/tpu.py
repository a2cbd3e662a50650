"""Implementations of layers that need the least memory on a TPU.

The results differ from those for CPUs only by rounding. `backend.targets_tpu` selects
the implementation; docs/results/tpu_bytes.json has the memory saved by each.
"""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Sequence

import tensorflow as tf


def embed_patches(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Return the patches' tokens (batch, rows * columns, width), by a convolution.

    A product of reshaped patches, which is faster on a CPU, has the tokens outermost in
    memory: every product of the blocks would copy them. A convolution over the pixels,
    and its gradient, would each copy the images into another padded layout. So the
    patches are cut once, and a convolution of 1 × 1 goes over them.

    Args:
        images: (batch, height, width, channels), cut to whole patches.
        kernel: (patch, patch, channels, width).
    """
    side, _, channels, width = kernel.shape
    rows, columns = images.shape[1] // side, images.shape[2] // side
    cut = tf.reshape(images, (-1, rows, side, columns, side * channels))
    cut = tf.transpose(cut, (0, 1, 3, 2, 4))
    cut = tf.reshape(cut, (-1, rows, columns, side * side * channels))
    x = tf.nn.conv2d(cut, tf.reshape(kernel, (1, 1, -1, width)), 1, "VALID")
    return tf.reshape(x, (-1, rows * columns, width))


def project(tokens: tf.Tensor, kernels: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Return the products of the same tokens with several kernels.

    One product with the stacked kernels reads the tokens once. Their gradients are
    separate products: a stack of gradients would be a copy. If the kernels are larger
    than the tokens, as in ViT-G with 8 images, a stack costs more than it saves.

    Args:
        tokens: (batch, tokens, width).
        kernels: Each (width, heads, head_dim).

    Returns:
        Tensors (batch, tokens, heads, head_dim).
    """
    batch, length, width = tokens.shape
    if batch is None or batch * length <= len(kernels) * width:
        return [tf.einsum("bnd,dhk->bnhk", tokens, kernel) for kernel in kernels]
    return list(_project_stacked(tokens, *kernels))


@tf.custom_gradient
def _project_stacked(
    x: tf.Tensor, *kernels: tf.Tensor
) -> tuple[tuple[tf.Tensor, ...], Callable[..., tuple[tf.Tensor, ...]]]:
    products = tf.einsum("bnd,tdhk->tbnhk", x, tf.stack(kernels))

    def gradient(*upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
        d_x = tf.add_n(
            [
                tf.einsum("bnhk,dhk->bnd", d_y, kernel)
                for d_y, kernel in zip(upstream, kernels, strict=True)
            ]
        )
        return d_x, *(tf.einsum("bnd,bnhk->dhk", x, d_y) for d_y in upstream)

    return tuple(tf.unstack(products)), gradient


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
