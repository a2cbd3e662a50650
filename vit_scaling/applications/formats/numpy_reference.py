"""A ViT's forward pass in NumPy, on the arrays of a source file under its own names."""
# SPDX-License-Identifier: Apache-2.0

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_scaling.applications.formats.vit_weights import ReadOptions, ViTWeights
from vit_scaling.array_files import Arrays

Array = np.ndarray
Names = Sequence[str]


@dataclasses.dataclass(frozen=True)
class Stated:
    """What the source itself says of its computation; None: nothing.

    Attributes:
        heads: Attention heads.
        head: "token", "gap", "map" or "none".
        tanh_gelu: GELU by tanh (True) or erf (False).
        epsilon: Epsilon of the norms.
        plain_blocks: True if it says that norms come before attention and MLP.
    """

    heads: int | None = None
    head: str | None = None
    tanh_gelu: bool | None = None
    epsilon: float | None = None
    plain_blocks: bool | None = None


class NumpyReference(abc.ABC):
    """The steps that all sources share; each subclass knows its arrays' names.

    It reads the source's configuration by itself, so a fact that the converter got
    wrong shows as a difference in outputs.

    Args:
        arrays: The file's arrays.
        weights: What was read from them. The facts in `taken_from_reader`, which the
            source does not state, are used.
        prefix: Prefix of the model's arrays in the file.
        config: The publisher's config.json, or {}.
        options: What the caller asked for in place of the source's facts.

    Attributes:
        taken_from_reader: Names of the facts that this comparison can't check.
    """

    # Suffixes of a layer's arrays, a norm's gain among them, as PyTorch names them.
    kernel_suffix, gain_suffix, bias_suffix = ".weight", ".weight", ".bias"
    last_norm: str
    classifiers: tuple[str, ...]  # The last is linear; a tanh follows the others.
    # Arrays that hold several layers: from a text in their names to the layers' texts.
    fused: Mapping[str, Sequence[str]] = {}

    def __init__(
        self,
        arrays: Arrays,
        weights: ViTWeights,
        prefix: str = "",
        config: Mapping[str, Any] | None = None,
        options: ReadOptions | None = None,
    ) -> None:
        self.arrays: Arrays = {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith((prefix, "classifier.")) and name not in weights.left_out
        }
        for text, parts in self.fused.items():
            for name in [name for name in self.arrays if text in name]:
                values = np.split(self.arrays[name], len(parts))
                for part, value in zip(parts, values, strict=True):
                    self.arrays[name.replace(text, part)] = value
        self.weights = weights
        self.config = config or {}
        options = options or ReadOptions()
        arguments, stated = weights.arguments, self.stated()
        self.taken_from_reader: list[str] = []
        fact, shape = self._fact, weights.shape
        epsilon = arguments.get("norm_epsilon", 1e-6)
        gelu = arguments.get("approximate_gelu", True)
        self.head = fact("kind of head", options.head, stated.head, arguments["head"])
        self.heads = fact("heads", options.heads, stated.heads, shape.heads)
        self.epsilon = fact("epsilon", options.norm_epsilon, stated.epsilon, epsilon)
        self.tanh_gelu = fact("GELU", options.approximate_gelu, stated.tanh_gelu, gelu)
        fact("order in a block", None, stated.plain_blocks, True)

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name].astype(np.float64)

    def _fact(self, name: str, requested: Any, stated: Any, read: Any) -> Any:
        """Return the caller's wish, else the source's fact, else the reader's."""
        if requested is None and stated is not None:
            return stated
        self.taken_from_reader.append(name)
        return read if requested is None else requested

    def stated(self) -> Stated:
        """Return what arrays and configuration say of the computation."""
        return Stated()

    @abc.abstractmethod
    def embed(self, images: Array) -> Array:
        """Return tokens with positions (batch, tokens, width), the patches last."""

    @abc.abstractmethod
    def block(self, x: Array, number: int) -> Array:
        """Apply an encoder block to tokens."""

    @abc.abstractmethod
    def attention_pool(self, x: Array) -> Array:
        """Pool patches (batch, patches, width) by the MAP head to (batch, width)."""

    def matrix(self, name: str, inputs: int) -> Array:
        """Return a linear layer's kernel as a matrix (inputs, outputs)."""
        return self[name + self.kernel_suffix].T

    def bias(self, name: str) -> Array:
        """Return a layer's bias as a vector, or zero if the layer has none."""
        name += self.bias_suffix
        return self[name].reshape(-1) if name in self.arrays else np.zeros(())

    def patch_kernel(self, name: str) -> Array:
        """Return the patch embedding's kernel (rows, columns, in, out)."""
        return self[name + self.kernel_suffix].transpose(2, 3, 1, 0)

    def outputs(self, images: Array) -> Array:
        """Return logits or features of images (batch, height, width, 3)."""
        rows, columns = self.weights.shape.grid(images.shape[1:3])
        x = self.embed(images)
        for number in range(self.weights.shape.depth):
            x = self.block(x, number)
        x = self.pool(x, patches=rows * columns)
        for name in self.classifiers:
            if name + self.kernel_suffix in self.arrays:
                x = self.linear(name, x)
                x = x if name == self.classifiers[-1] else self.before_classifier(x)
        return x

    def before_classifier(self, x: Array) -> Array:
        """Apply the function after the layer before the classifier."""
        return np.tanh(x)

    def pool(self, x: Array, patches: int) -> Array:
        """Apply the last norm and the head to tokens, whose last are the patches."""
        x = self.norm(self.last_norm, x)
        if self.head == "token":
            return x[:, 0]
        x = x[:, -patches:]  # The class token and registers are not patches.
        if self.head == "map":
            return self.attention_pool(x)
        return x if self.head == "none" else x.mean(1)

    def linear(self, name: str, x: Array) -> Array:
        """Apply a linear layer over the last axis."""
        return x @ self.matrix(name, x.shape[-1]) + self.bias(name)

    def norm(self, name: str, x: Array) -> Array:
        """Apply layer normalisation over the last axis."""
        return self.normalize(x) * self[name + self.gain_suffix] + self.bias(name)

    def normalize(self, x: Array) -> Array:
        """Shift and scale the last axis to mean 0 and variance 1."""
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.epsilon)

    def gelu(self, x: Array) -> Array:
        """0.5 x (1 + erf(x / sqrt 2)), or its approximation by tanh."""
        if self.tanh_gelu:
            cubic = x + 0.044715 * x**3
            return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * cubic))
        from scipy.special import erf  # Only here: SciPy takes long to import.

        return 0.5 * x * (1 + erf(x / math.sqrt(2)))

    def mlp(self, layers: Names, x: Array) -> Array:
        """Apply linear, GELU, linear."""
        first, second = layers
        return self.linear(second, self.gelu(self.linear(first, x)))

    def attention(self, queries: Array, x: Array, layers: Sequence[str]) -> Array:
        """Attend from queries to x; layers: query, key, value and output projection."""
        query, key, value, out = layers
        q, k, v = (
            self.linear(query, queries),
            self.linear(key, x),
            self.linear(value, x),
        )
        return self.linear(out, self.attend(q, k, v))

    def attend(self, q: Array, k: Array, v: Array) -> Array:
        """Softmax attention of (batch, tokens, heads * dim), dim = width / heads."""
        q, k, v = (x.reshape(*x.shape[:2], self.heads, -1) for x in (q, k, v))
        scores = np.einsum("bqhd,bkhd->bhqk", q, k, optimize=True)
        scores /= math.sqrt(q.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        out = np.einsum("bhqk,bkhd->bqhd", scores, v, optimize=True)
        return out.reshape(*out.shape[:2], -1)

    def encoder_block(
        self, x: Array, norms: Names, attention: Names, mlp: Names
    ) -> Array:
        """Apply a block of two residual branches whose layers have these names."""
        y = self.norm(norms[0], x)
        x = x + self.attention(y, y, attention)
        return x + self.mlp(mlp, self.norm(norms[1], x))

    def map_head(
        self, x: Array, probe: str, attention: Names, norm: str, mlp: Names
    ) -> Array:
        """Apply a MAP head whose arrays and layers have these names."""
        queries = np.repeat(self[probe], len(x), axis=0)
        y = self.attention(queries, x, attention)
        return (y + self.mlp(mlp, self.norm(norm, y)))[:, 0]

    def convolve_patches(self, images: Array, kernel: Array) -> Array:
        """Convolve without overlap: (batch, rows * columns, width)."""
        batch, height, width, _ = images.shape
        p = kernel.shape[0]
        rows, columns = height // p, width // p
        x = images[:, : rows * p, : columns * p].astype(np.float64)
        x = x.reshape(batch, rows, p, columns, p, -1)
        x = np.einsum("brpcqi,pqid->brcd", x, kernel, optimize=True)
        return x.reshape(batch, rows * columns, -1)

    def embed_patches(self, images: Array, name: str) -> Array:
        """Return the patches' tokens (batch, rows * columns, width)."""
        kernel = self.patch_kernel(name)
        return self.convolve_patches(images, kernel) + self.bias(name)

    def add_tokens(self, x: Array, tokens: Names, positions: Array) -> Array:
        """Put the file's tokens before the patches; add positions to patches or all."""
        arrays = [self[name] for name in tokens if name in self.arrays]
        if not arrays and positions.shape[1] == x.shape[1] + 1:
            positions = positions[:, 1:]  # Of a class token that is left out.
        if positions.shape[1] == x.shape[1]:
            x, positions = x + positions, np.zeros(())
        arrays = [np.repeat(array, len(x), axis=0) for array in arrays]
        return np.concatenate([*arrays, x], axis=1) + positions
