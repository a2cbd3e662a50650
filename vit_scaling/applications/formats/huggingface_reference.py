"""The forward passes of transformers' ViT and SigLIP and CLIP towers in NumPy."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vit_scaling.applications.formats.numpy_reference import NumpyReference, Stated
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


# Models whose default `layer_norm_eps` is 1e-6 and not 1e-12.
EPSILON_1E_6 = ("siglip", "siglip_vision_model", "vit_msn", "dinov2")


class HuggingFaceReference(NumpyReference):
    """transformers' ViT, DeiT, DINOv2, SigLIP and CLIP, under the names in files."""

    classifiers = ("pooler.dense", "classifier")
    fused = {  # noqa: RUF012
        "attention.in_proj_": tuple(f"attention.{part}_proj." for part in "qkv")
    }

    def __init__(
        self, arrays: Arrays, weights: ViTWeights, prefix: str = "", **stated: Any
    ) -> None:
        self.is_clip = weights.layout == "huggingface_clip"
        self.is_siglip = weights.layout == "huggingface_siglip"
        super().__init__(arrays, weights, prefix, **stated)
        self.arrays = {_name_in_files(name): a for name, a in self.arrays.items()}
        is_vit = weights.layout == "huggingface_vit"
        self.last_norm = "layernorm" if is_vit else "post_layernorm"

    @property
    def image_config(self) -> Mapping[str, Any]:
        """The image model's part of config.json."""
        return self.config.get("vision_config") or self.config

    def stated(self) -> Stated:
        """Return what config.json says, with transformers' own defaults."""
        config = self.image_config
        if not config:
            return Stated()
        kind = str(config.get("model_type", "siglip" if self.is_siglip else "vit"))
        small = kind.startswith(EPSILON_1E_6)
        activation = config.get("hidden_act", "tanh" if self.is_siglip else "gelu")
        tanh = activation not in ("gelu", "gelu_python")
        heads, epsilon = config.get("num_attention_heads"), 1e-6 if small else 1e-12
        epsilon = 1e-5 if self.is_clip else epsilon
        epsilon = config.get("layer_norm_eps", epsilon)
        return Stated(heads, self._own_head(), tanh, epsilon, plain_blocks=True)

    def _own_head(self) -> str:
        if self.is_siglip:
            return "gap" if "classifier.weight" in self.arrays else "map"
        has_token = "embeddings.cls_token" in self.arrays or self.is_clip
        return "token" if has_token else "gap"

    def before_classifier(self, x: np.ndarray) -> np.ndarray:
        """Apply the function of ViTModel's pooler."""
        functions: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "tanh": np.tanh,
            "relu": lambda x: np.maximum(x, 0),
        }
        return functions[self.image_config.get("pooler_act", "tanh")](x)

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Return tokens with positions (batch, tokens, width), the patches last."""
        if self.is_siglip or self.is_clip:
            return self._embed_tower(images)
        x = self.embed_patches(images, "embeddings.patch_embeddings.projection")
        positions = self["embeddings.position_embeddings"]
        names = ("embeddings.cls_token", "embeddings.distillation_token")
        x = self.add_tokens(x, names, positions)
        if "embeddings.register_tokens" not in self.arrays:
            return x
        registers = np.repeat(self["embeddings.register_tokens"], len(x), axis=0)
        return np.concatenate([x[:, :1], registers, x[:, 1:]], axis=1)

    def _embed_tower(self, images: np.ndarray) -> np.ndarray:
        x = self.embed_patches(images, "embeddings.patch_embedding")
        positions = self["embeddings.position_embedding.weight"]
        if not self.is_clip:
            return x + positions
        token = np.broadcast_to(self["embeddings.class_embedding"], x[:, :1].shape)
        return self.norm("pre_layrnorm", np.concatenate([token, x], 1) + positions)

    def block(self, x: np.ndarray, number: int) -> np.ndarray:
        """Apply an encoder block of any of the models."""
        if self.is_siglip or self.is_clip:
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
        projections.append(block + "attention.output.dense")
        if block + "norm1.weight" in self.arrays:
            return self._dinov2_block(x, block, projections)
        return self.encoder_block(
            x,
            (block + "layernorm_before", block + "layernorm_after"),
            projections,
            (block + "intermediate.dense", block + "output.dense"),
        )

    def _dinov2_block(
        self, x: np.ndarray, block: str, projections: list[str]
    ) -> np.ndarray:
        y = self.norm(block + "norm1", x)
        y = self.attention(y, y, projections)
        x = x + y * self[block + "layer_scale1.lambda1"]
        y = self.mlp(
            (block + "mlp.fc1", block + "mlp.fc2"), self.norm(block + "norm2", x)
        )
        return x + y * self[block + "layer_scale2.lambda1"]

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
