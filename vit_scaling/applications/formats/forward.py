"""Steps of a ViT's forward pass in NumPy, for the references of other layouts."""
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Mapping

import numpy as np

from vit_scaling.applications.formats.layout import Arrays, ViTWeights


class Forward:
    """The steps that all sources share; each subclass reads its own arrays."""

    prefixes: tuple[str, ...] = ("",)  # Where in the file the model may lie.
    markers: tuple[str, ...] = ()  # The array that tells where it does.

    def __init__(self, arrays: Arrays, weights: ViTWeights) -> None:
        prefix = next(
            prefix
            for prefix in self.prefixes
            if any(prefix + marker in arrays for marker in self.markers)
        )
        self.arrays: Mapping[str, np.ndarray] = {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith((prefix, "classifier."))
            and name not in weights.left_out  # By the caller's wish, or of no effect.
        }
        self.weights = weights
        self.head = weights.arguments["head"]
        self.heads = weights.shape.heads
        self.epsilon = weights.arguments.get("norm_epsilon", 1e-6)
        self.tanh_gelu = weights.arguments.get("approximate_gelu", True)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name].astype(np.float64)

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Return logits or features of images (batch, height, width, 3)."""
        raise NotImplementedError

    def gelu(self, x: np.ndarray) -> np.ndarray:
        """0.5 x (1 + erf(x / sqrt 2)), or its approximation by tanh."""
        if self.tanh_gelu:
            cubic = x + 0.044715 * x**3
            return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * cubic))
        from scipy.special import erf  # Comes with the package's other needs.

        return 0.5 * x * (1 + erf(x / math.sqrt(2)))

    def norm_of(self, x: np.ndarray, gain: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Layer normalisation over the last axis."""
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + self.epsilon)
        return centred / scale * gain + shift

    def attend(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Softmax attention of (batch, tokens, heads * dim), dim = width / heads."""
        q, k, v = (x.reshape(*x.shape[:2], self.heads, -1) for x in (q, k, v))
        q, k = self.normed_heads(q, k)
        scores = np.einsum("bqhd,bkhd->bhqk", q, k, optimize=True)
        scores /= math.sqrt(q.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        out = np.einsum("bhqk,bkhd->bqhd", scores, v, optimize=True)
        return out.reshape(*out.shape[:2], -1)

    def normed_heads(
        self, q: np.ndarray, k: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Query-key norm, where a source has it."""
        return q, k

    def patches(self, images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        """Convolve without overlap: (batch, rows * columns, width)."""
        batch, height, width, _ = images.shape
        p = kernel.shape[0]
        rows, columns = height // p, width // p
        x = images[:, : rows * p, : columns * p].astype(np.float64)
        x = x.reshape(batch, rows, p, columns, p, -1)
        x = np.einsum("brpcqi,pqid->brcd", x, kernel, optimize=True)
        return x.reshape(batch, rows * columns, -1)
