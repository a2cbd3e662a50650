"""The forward passes of Hugging Face transformers' ViT and SigLIP tower in NumPy."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from vit_scaling.applications.formats.numpy_reference import NumpyReference
from vit_scaling.applications.formats.vit_weights import ViTWeights
from vit_scaling.array_files import Arrays

# From a ViT's layers inside transformers 5 to their names in files. The reader has a
# separate list, so that an error in one of them shows.
NAMES_IN_FILES = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


class HuggingFaceReference(NumpyReference):
    """transformers' ViT and SigLIP image tower, under the names in their files."""

    classifiers = ("pooler.dense", "classifier")
    fused = {  # noqa: RUF012
        "attention.in_proj_": tuple(f"attention.{part}_proj." for part in "qkv")
    }

    def __init__(self, arrays: Arrays, weights: ViTWeights, prefix: str = "") -> None:
        super().__init__(arrays, weights, prefix)
        self.arrays = {_name_in_files(name): a for name, a in self.arrays.items()}
        self.is_siglip = weights.layout == "huggingface_siglip"
        self.last_norm = "post_layernorm" if self.is_siglip else "layernorm"

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Return tokens with positions (batch, tokens, width), the patches last."""
        if self.is_siglip:
            x = self.embed_patches(images, "embeddings.patch_embedding")
            return x + self["embeddings.position_embedding.weight"]
        x = self.embed_patches(images, "embeddings.patch_embeddings.projection")
        positions = self["embeddings.position_embeddings"]
        return self.add_tokens(x, ["embeddings.cls_token"], positions)

    def block(self, x: np.ndarray, number: int) -> np.ndarray:
        """Apply an encoder block of either model."""
        if self.is_siglip:
            block = f"encoder.layers.{number}."
            return self.encoder_block(
                x,
                (block + "layer_norm1", block + "layer_norm2"),
                [f"{block}self_attn.{part}_proj" for part in ("q", "k", "v", "out")],
                (block + "mlp.fc1", block + "mlp.fc2"),
            )
        block = f"encoder.layer.{number}."
        projections = [
            f"{block}attention.attention.{part}" for part in ("query", "key", "value")
        ]
        return self.encoder_block(
            x,
            (block + "layernorm_before", block + "layernorm_after"),
            [*projections, block + "attention.output.dense"],
            (block + "intermediate.dense", block + "output.dense"),
        )

    def attention_pool(self, x: np.ndarray) -> np.ndarray:
        """Pool patches by SigLIP's MAP head."""
        return self.map_head(
            x,
            "head.probe",
            [f"head.attention.{part}_proj" for part in ("q", "k", "v", "out")],
            "head.layernorm",
            ("head.mlp.fc1", "head.mlp.fc2"),
        )


def _name_in_files(name: str) -> str:
    if not name.startswith("layers."):
        return name
    _, number, rest = name.split(".", 2)
    layer, _, kind = rest.rpartition(".")
    return f"encoder.layer.{number}.{NAMES_IN_FILES.get(layer, layer)}.{kind}"
