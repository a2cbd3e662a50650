"""The forward pass of big_vision's and vision_transformer's ViTs in NumPy."""
# SPDX-License-Identifier: Apache-2.0

from typing import Any

import numpy as np

from vit_scaling.applications.formats.numpy_reference import NumpyReference, Stated
from vit_scaling.applications.formats.vit_weights import ViTWeights
from vit_scaling.array_files import Arrays
from vit_scaling.modeling.positions import sincos


class BigVisionReference(NumpyReference):
    """Flax modules of both repositories, of every generation."""

    kernel_suffix, gain_suffix, bias_suffix = "/kernel", "/scale", "/bias"
    last_norm = "Transformer/encoder_norm"
    classifiers = ("pre_logits", "head")

    def __init__(
        self, arrays: Arrays, weights: ViTWeights, prefix: str = "", **stated: Any
    ) -> None:
        super().__init__(arrays, weights, prefix, **stated)
        stacked = "Transformer/encoderblock/"  # The authors' `scan=True`.
        for name in [name for name in self.arrays if name.startswith(stacked)]:
            for number, array in enumerate(self.arrays[name]):
                self.arrays[name.replace("block/", f"block_{number}/", 1)] = array

    def stated(self) -> Stated:
        """Return the heads, an axis of the arrays, and the code's constants."""
        queries = [a for n, a in self.arrays.items() if n.endswith("query/kernel")]
        heads = queries[0].shape[-2] if queries else None
        return Stated(heads, tanh_gelu=True, epsilon=1e-6)

    def matrix(self, name: str, inputs: int) -> np.ndarray:
        """Return a kernel as a matrix (inputs, outputs); axes of heads are merged."""
        return self[name + "/kernel"].reshape(inputs, -1)

    def patch_kernel(self, name: str) -> np.ndarray:
        """Return the patch embedding's kernel, which Flax stores in our order."""
        return self[name + "/kernel"]

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Return tokens with positions (batch, tokens, width), the patches last."""
        x = self.embed_patches(images, "embedding")
        names = [name for name in self.arrays if name.endswith("pos_embedding")]
        if names:
            positions = self[names[0]]
        else:
            grid = self.weights.shape.grid(self.weights.arguments["image_size"])
            positions = sincos(grid, x.shape[-1]).astype(np.float64)
        return self.add_tokens(x, ["cls"], positions)

    def block(self, x: np.ndarray, number: int) -> np.ndarray:
        """Apply an encoder block; its parts' numbers differ between generations."""
        block = f"Transformer/encoderblock_{number}/"
        names = [name for name in self.arrays if name.startswith(block)]
        parts = sorted({name.removeprefix(block).split("/")[0] for name in names})
        norms = [block + part for part in parts if part.startswith("LayerNorm")]
        (attention,) = (part for part in parts if part.startswith("MultiHead"))
        (mlp,) = (part for part in parts if part.startswith("Mlp"))
        return self.encoder_block(
            x, norms, _projections(block + attention), _dense_layers(block + mlp)
        )

    def attention_pool(self, x: np.ndarray) -> np.ndarray:
        """Pool patches by the MAP head, which old files store without a prefix."""
        head = "MAPHead_0/" if "MAPHead_0/probe" in self.arrays else ""
        return self.map_head(
            x,
            head + "probe",
            _projections(head + "MultiHeadDotProductAttention_0"),
            head + "LayerNorm_0",
            _dense_layers(head + "MlpBlock_0"),
        )


def _projections(attention: str) -> list[str]:
    return [f"{attention}/{part}" for part in ("query", "key", "value", "out")]


def _dense_layers(mlp: str) -> list[str]:
    return [f"{mlp}/Dense_{number}" for number in (0, 1)]
