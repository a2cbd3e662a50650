"""The forward pass of timm's VisionTransformer in NumPy."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from vit_scaling.applications.formats.numpy_reference import NumpyReference, Stated
from vit_scaling.applications.formats.timm_config import timm_models


class TimmReference(NumpyReference):
    """timm's VisionTransformer."""

    last_norm = "norm"
    classifiers = ("pre_logits.fc", "head")
    fused = {  # noqa: RUF012
        "attn.qkv.": ("attn.q.", "attn.k.", "attn.v."),
        "attn_pool.kv.": ("attn_pool.k.", "attn_pool.v."),
    }

    def stated(self) -> Stated:
        """Return what timm's registry and the arguments in config.json say."""
        name, given = self.config.get("architecture", ""), self.config.get("model_args")
        row, given = timm_models().get(name.split(".")[0]), given or {}
        heads, pool = given.get("num_heads"), given.get("global_pool")
        activation = given.get("act_layer")
        if row is not None:
            heads, activation = heads or row.heads, activation or row.gelu
            pool = self.config.get("global_pool", row.pool) if pool is None else pool
        if "blocks.0.attn.q_norm.weight" in self.arrays:
            width = len(self.arrays["blocks.0.attn.proj.bias"])
            heads = width // len(self.arrays["blocks.0.attn.q_norm.weight"])
        return Stated(
            heads,
            {"token": "token", "avg": "gap", "map": "map", "": "none"}.get(str(pool)),
            activation and activation == "gelu_tanh",
            row and row.epsilon,
            row and not row.differs,
        )

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Return tokens with positions (batch, tokens, width), the patches last."""
        x = self.embed_patches(images, "patch_embed.proj")
        x = self.add_tokens(x, ["cls_token", "reg_token"], self["pos_embed"])
        return self.norm("norm_pre", x) if "norm_pre.weight" in self.arrays else x

    def block(self, x: np.ndarray, number: int) -> np.ndarray:
        """Apply an encoder block, with query-key norm and LayerScale if it has them."""
        block = f"blocks.{number}."
        y = self.norm(block + "norm1", x)
        q, k, v = (self.linear(f"{block}attn.{part}", y) for part in "qkv")
        q = self._norm_heads(block + "attn.q_norm", q)
        k = self._norm_heads(block + "attn.k_norm", k)
        y = self.linear(block + "attn.proj", self.attend(q, k, v))
        x = x + y * self._layer_scale(block + "ls1.gamma")
        mlp = (block + "mlp.fc1", block + "mlp.fc2")
        y = self.mlp(mlp, self.norm(block + "norm2", x))
        return x + y * self._layer_scale(block + "ls2.gamma")

    def pool(self, x: np.ndarray, patches: int) -> np.ndarray:
        """Apply the last norm and the head, in timm's order for `fc_norm`."""
        if "fc_norm.weight" in self.arrays:
            return self.norm("fc_norm", x[:, -patches:].mean(1))
        return super().pool(x, patches)

    def attention_pool(self, x: np.ndarray) -> np.ndarray:
        """Pool patches by timm's AttentionPoolLatent."""
        return self.map_head(
            x,
            "attn_pool.latent",
            [f"attn_pool.{part}" for part in ("q", "k", "v", "proj")],
            "attn_pool.norm",
            ("attn_pool.mlp.fc1", "attn_pool.mlp.fc2"),
        )

    def _norm_heads(self, name: str, x: np.ndarray) -> np.ndarray:
        if name + ".weight" not in self.arrays:
            return x
        heads = x.reshape(*x.shape[:2], self.heads, -1)
        return self.norm(name, heads).reshape(x.shape)

    def _layer_scale(self, name: str) -> np.ndarray:
        return self[name] if name in self.arrays else np.ones(())
