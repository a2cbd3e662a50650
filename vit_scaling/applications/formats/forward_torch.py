"""The forward passes of timm's and Hugging Face's models in NumPy, on their arrays."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from vit_scaling.applications.formats import huggingface, timm
from vit_scaling.applications.formats.forward import Forward
from vit_scaling.applications.formats.layout import Arrays, ViTWeights

# A ViT's parts inside transformers 5, and in files. The reader has a list of its
# own, so that an error in one of them shows.
NEWER_PARTS = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


class TorchForward(Forward):
    """What PyTorch models share: (out, in) weights, biases that may be absent."""

    def bias(self, name: str) -> np.ndarray:
        """A bias, or zero where the model has none."""
        return self[name] if name in self.arrays else np.zeros(())

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        """X W' + b."""
        return x @ self[name + ".weight"].T + self.bias(name + ".bias")

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        """Layer normalisation with the arrays of this name."""
        return self.norm_of(x, self[name + ".weight"], self[name + ".bias"])

    def mlp(self, first: str, second: str, x: np.ndarray) -> np.ndarray:
        """Linear, GELU, linear."""
        return self.linear(second, self.gelu(self.linear(first, x)))

    def embed(self, images: np.ndarray, name: str) -> np.ndarray:
        """Patches (batch, rows * columns, width)."""
        kernel = self[name + ".weight"].transpose(2, 3, 1, 0)
        return self.patches(images, kernel) + self.bias(name + ".bias")

    def with_tokens(
        self, x: np.ndarray, names: list[str], positions: np.ndarray
    ) -> np.ndarray:
        """Add positions to the patches alone or, where they are longer, to all."""
        if positions.shape[1] == x.shape[1]:
            x, positions = x + positions, np.zeros(())
        tokens = [np.repeat(self[n], len(x), axis=0) for n in names if n in self.arrays]
        return np.concatenate([*tokens, x], axis=1) + positions


class TimmForward(TorchForward):
    """timm's VisionTransformer."""

    prefixes = timm.PREFIXES
    markers = (timm.PATCH,)

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Return logits or features of images (batch, height, width, 3)."""
        x = self.embed(images, "patch_embed.proj")
        patches = x.shape[1]
        x = self.with_tokens(x, ["cls_token", "reg_token"], self["pos_embed"])
        for number in range(self.weights.shape.depth):
            x = self._block(x, f"blocks.{number}.")
        if "fc_norm.weight" in self.arrays:
            x = self.norm("fc_norm", x[:, -patches:].mean(1))
            return self.linear("head", x) if "head.weight" in self.arrays else x
        x = self.norm("norm", x)
        if self.head == "map":
            x = self._pool(x[:, -patches:])
        elif self.head == "token":
            x = x[:, 0]
        else:  # The class token and registers are no patches.
            x = x[:, -patches:]
            x = x if self.head == "none" else x.mean(1)
        return self.linear("head", x) if "head.weight" in self.arrays else x

    def _block(self, x: np.ndarray, name: str) -> np.ndarray:
        self.block = name
        y = self.linear(name + "attn.qkv", self.norm(name + "norm1", x))
        y = self.linear(name + "attn.proj", self.attend(*np.split(y, 3, axis=-1)))
        x = x + y * self._scale(name + "ls1.gamma")
        y = self.mlp(name + "mlp.fc1", name + "mlp.fc2", self.norm(name + "norm2", x))
        return x + y * self._scale(name + "ls2.gamma")

    def _scale(self, name: str) -> np.ndarray:
        return self[name] if name in self.arrays else np.ones(())

    def normed_heads(
        self, q: np.ndarray, k: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Norm queries and keys per head where the block has the arrays for it."""
        if self.block + "attn.q_norm.weight" not in self.arrays:
            return q, k
        name = self.block + "attn."
        return self.norm(name + "q_norm", q), self.norm(name + "k_norm", k)

    def _pool(self, x: np.ndarray) -> np.ndarray:
        self.block = "attn_pool."
        latent = np.repeat(self["attn_pool.latent"], len(x), axis=0)
        q = self.linear("attn_pool.q", latent)
        k, v = np.split(self.linear("attn_pool.kv", x), 2, axis=-1)
        y = self.linear("attn_pool.proj", self.attend(q, k, v))
        z = self.norm("attn_pool.norm", y)
        return (y + self.mlp("attn_pool.mlp.fc1", "attn_pool.mlp.fc2", z))[:, 0]


class HuggingFaceForward(TorchForward):
    """transformers' ViT and SigLIP image tower, under the names in their files."""

    prefixes = huggingface.PREFIXES
    markers = (huggingface.VIT_PATCH, huggingface.SIGLIP_PATCH)

    def __init__(self, arrays: Arrays, weights: ViTWeights) -> None:
        super().__init__(arrays, weights)
        self.arrays = {self._as_in_files(name): a for name, a in self.arrays.items()}

    def _as_in_files(self, name: str) -> str:
        if not name.startswith("layers."):
            return name
        _, number, rest = name.split(".", 2)
        part, _, kind = rest.rpartition(".")
        return f"encoder.layer.{number}.{NEWER_PARTS.get(part, part)}.{kind}"

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Return logits or features of images (batch, height, width, 3)."""
        siglip = self.weights.layout == "huggingface_siglip"
        x, patches = self._embedded(images, siglip)
        for number in range(self.weights.shape.depth):
            x = (self._siglip_block if siglip else self._vit_block)(x, number)
        x = self.norm("post_layernorm" if siglip else "layernorm", x)
        if self.head == "map":
            x = self._pool(x)
        elif self.head == "token":
            x = x[:, 0]
        else:  # The class token and registers are no patches.
            x = x[:, -patches:]
            x = x if self.head == "none" else x.mean(1)
        if "pooler.dense.weight" in self.arrays:
            x = np.tanh(self.linear("pooler.dense", x))
        if "classifier.weight" in self.arrays:
            x = self.linear("classifier", x)
        return x

    def _embedded(self, images: np.ndarray, siglip: bool) -> tuple[np.ndarray, int]:
        """Return all tokens, and how many of them, the last ones, are patches."""
        if siglip:
            positions = self["embeddings.position_embedding.weight"][None]
            x = self.embed(images, "embeddings.patch_embedding") + positions
            return x, x.shape[1]
        x = self.embed(images, "embeddings.patch_embeddings.projection")
        positions = self["embeddings.position_embeddings"]
        tokens = self.with_tokens(x, ["embeddings.cls_token"], positions)
        return tokens, x.shape[1]

    def _vit_block(self, x: np.ndarray, number: int) -> np.ndarray:
        name = f"encoder.layer.{number}."
        y = self.norm(name + "layernorm_before", x)
        qkv = [
            self.linear(f"{name}attention.attention.{part}", y)
            for part in ("query", "key", "value")
        ]
        x = x + self.linear(name + "attention.output.dense", self.attend(*qkv))
        y = self.norm(name + "layernorm_after", x)
        return x + self.mlp(name + "intermediate.dense", name + "output.dense", y)

    def _siglip_block(self, x: np.ndarray, number: int) -> np.ndarray:
        name = f"encoder.layers.{number}."
        y = self.norm(name + "layer_norm1", x)
        qkv = [self.linear(f"{name}self_attn.{part}_proj", y) for part in "qkv"]
        x = x + self.linear(name + "self_attn.out_proj", self.attend(*qkv))
        y = self.norm(name + "layer_norm2", x)
        return x + self.mlp(name + "mlp.fc1", name + "mlp.fc2", y)

    def _pool(self, x: np.ndarray) -> np.ndarray:
        weights = np.split(self["head.attention.in_proj_weight"], 3)
        biases = np.split(self["head.attention.in_proj_bias"], 3)
        probe = np.repeat(self["head.probe"], len(x), axis=0)
        qkv = [
            tokens @ weight.T + bias
            for tokens, weight, bias in zip((probe, x, x), weights, biases, strict=True)
        ]
        y = self.linear("head.attention.out_proj", self.attend(*qkv))
        z = self.norm("head.layernorm", y)
        return (y + self.mlp("head.mlp.fc1", "head.mlp.fc2", z))[:, 0]
