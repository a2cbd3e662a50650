"""Position embeddings, learned and sin-cos, and their resampling to another grid."""
# SPDX-License-Identifier: Apache-2.0

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vit_scaling.modeling import noise
from vit_scaling.modeling.layers import Shape, register


class Positions(keras.layers.Layer):
    """Base of the position embeddings.

    Args:
        grid: Rows and columns of patches.
        seed: Seed of the initial values, if any.
    """

    def __init__(
        self, grid: tuple[int, int], *, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.grid = (grid[0], grid[1])  # Loading a model gives a list.
        self.seed = noise.seed_or_random(seed)

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        """Return the tokens' shape."""
        return tokens_shape


@register
class LearnedPositions(Positions):
    """Add a trained vector per patch, initially normal with deviation 1/sqrt(width)."""

    def build(self, tokens_shape: Shape) -> None:
        """Create embedding (1, rows * columns, width)."""
        width = tokens_shape[-1]
        self.embedding = self.add_weight(
            name="embedding",
            shape=(1, math.prod(self.grid), width),
            initializer=keras.initializers.RandomNormal(
                0.0, width**-0.5, seed=noise.seed_for(self.seed, "embedding")
            ),
        )

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return tokens (batch, rows * columns, width) with their positions added."""
        return tokens + self.embedding


@register
class SinCosPositions(Positions):
    """Add fixed sines and cosines of rows and columns (MoCo v3, the authors' code)."""

    def build(self, tokens_shape: Shape) -> None:
        """Check the width."""
        sincos((1, 1), tokens_shape[-1])

    def call(self, tokens: tf.Tensor) -> tf.Tensor:
        """Return tokens (batch, rows * columns, width) with their positions added."""
        embedding = sincos(self.grid, tokens.shape[-1])
        return tokens + tf.constant(embedding, tokens.dtype)


def sincos(
    grid: tuple[int, int], width: int, *, temperature: float = 10_000.0
) -> np.ndarray:
    """Return sin x, cos x, sin y, cos y of each patch, at width/4 frequencies each.

    Args:
        grid: Rows (y) and columns (x).
        width: Width of a token; a multiple of 4, at least 8.
        temperature: Ratio of the highest to the lowest frequency.

    Returns:
        float32 (1, rows * columns, width).

    Raises:
        ValueError: `width` is not a multiple of 4, or below 8.
    """
    if width % 4 or width < 8:
        raise ValueError(
            "Sin-cos positions need a `width` that is a multiple of 4 and at least 8; "
            f"received {width}. Use another width or position='learned'."
        )
    y, x = np.mgrid[: grid[0], : grid[1]].reshape(2, -1, 1)
    omega = temperature ** -(np.arange(width // 4) / (width // 4 - 1))
    parts = [np.sin(x * omega), np.cos(x * omega), np.sin(y * omega), np.cos(y * omega)]
    return np.concatenate(parts, axis=1)[None].astype(np.float32)


def resample(
    embedding: np.ndarray,
    new_grid: tuple[int, int],
    *,
    old_grid: tuple[int, int] | None = None,
) -> np.ndarray:
    """Return position embeddings for another grid, bilinear with the corners kept.

    The same as `scipy.ndimage.zoom(…, order=1)`, which the authors use.

    Args:
        embedding: (1, old rows * old columns, width), patches only, no class token.
        new_grid: Rows and columns to resample to.
        old_grid: Rows and columns of `embedding`; None assumes a square.

    Returns:
        float32 (1, rows * columns, width).

    Raises:
        ValueError: The embedding has another rank or does not match `old_grid`.
    """
    embedding = np.asarray(embedding, np.float32)
    if embedding.ndim != 3 or embedding.shape[0] != 1:
        raise ValueError(
            "`embedding` must be of shape (1, patches, width); "
            f"received {embedding.shape}."
        )
    patches, width = embedding.shape[1:]
    if old_grid is None:
        old_grid = (math.isqrt(patches),) * 2
    if math.prod(old_grid) != patches:
        raise ValueError(
            f"`embedding` must have {old_grid[0]} x {old_grid[1]} patches; received "
            f"{patches}. Give `old_grid`, and remove a class token's position first."
        )
    if tuple(old_grid) == tuple(new_grid):
        return embedding
    rows, columns = (
        _linear(old, new) for old, new in zip(old_grid, new_grid, strict=True)
    )
    grid = embedding.reshape(*old_grid, width).astype(np.float64)
    grid = np.einsum("ry,cx,yxd->rcd", rows, columns, grid, optimize=True)
    return grid.reshape(1, -1, width).astype(np.float32)


def _linear(old: int, new: int) -> np.ndarray:
    """Return the (new, old) matrix of linear interpolation with fixed end points."""
    at = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 1.0)
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(old)))
