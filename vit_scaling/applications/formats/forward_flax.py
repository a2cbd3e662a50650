"""The forward pass of the authors' two repositories in NumPy, on their arrays."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from vit_scaling.applications.formats.big_vision import PREFIXES
from vit_scaling.applications.formats.forward import Forward
from vit_scaling.modeling.positions import sincos


class FlaxForward(Forward):
    """vision_transformer's and big_vision's modules, whatever the generation."""

    prefixes = PREFIXES
    markers = ("embedding/kernel",)

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Return logits or features of images (batch, height, width, 3)."""
        x = self.patches(images, self["embedding/kernel"]) + self["embedding/bias"]
        patches = x.shape[1]
        x = self._with_positions(x)
        for block in range(self.weights.shape.depth):
            x = self._block(x, block)
        x = self._norm("Transformer/encoder_norm", x)
        if self.head == "map":
            x = self._pool(x)
        elif self.head == "token":
            x = x[:, 0]
        else:  # The class token and registers are no patches.
            x = x[:, -patches:]
            x = x if self.head == "none" else x.mean(1)
        for name in ("pre_logits", "head"):
            if f"{name}/kernel" in self.arrays:
                x = x @ self[f"{name}/kernel"] + self[f"{name}/bias"]
                x = np.tanh(x) if name == "pre_logits" else x
        return x

    def _with_positions(self, x: np.ndarray) -> np.ndarray:
        names = [name for name in self.arrays if name.endswith("pos_embedding")]
        if names:
            positions = self[names[0]]
        else:
            grid = self.weights.shape.grid(self.weights.arguments["image_size"])
            positions = sincos(grid, x.shape[-1]).astype(np.float64)
        cls = [self["cls"]] if "cls" in self.arrays else []
        if not cls and positions.shape[1] == x.shape[1] + 1:
            positions = positions[:, 1:]  # That of the class token, which is left out.
        if positions.shape[1] == x.shape[1]:  # Newer: the token has no position.
            x = x + positions
            positions = np.zeros(())
        tokens = [np.broadcast_to(c, (len(x), *c.shape[1:])) for c in cls]
        return np.concatenate([*tokens, x], axis=1) + positions

    def _block(self, x: np.ndarray, number: int) -> np.ndarray:
        name = f"Transformer/encoderblock_{number}/"
        at: tuple[int, ...] = ()
        if not any(n.startswith(name) for n in self.arrays):  # Stacked by `scan`.
            name, at = "Transformer/encoderblock/", (number,)
        parts = sorted({n.removeprefix(name).split("/")[0] for n in self.arrays
                        if n.startswith(name)})  # fmt: skip
        norms = [part for part in parts if part.startswith("LayerNorm")]
        attention = next(part for part in parts if part.startswith("MultiHead"))
        mlp = next(part for part in parts if part.startswith("Mlp"))
        y = self._norm(name + norms[0], x, at)
        x = x + self._attention(name + attention, y, y, at)
        return x + self._mlp(name + mlp, self._norm(name + norms[1], x, at), at)

    def _pool(self, x: np.ndarray) -> np.ndarray:
        name = "MAPHead_0/" if "MAPHead_0/probe" in self.arrays else ""
        probe = np.repeat(self[name + "probe"], len(x), axis=0)
        y = self._attention(name + "MultiHeadDotProductAttention_0", probe, x)
        y = y + self._mlp(name + "MlpBlock_0", self._norm(name + "LayerNorm_0", y))
        return y[:, 0]

    def _norm(self, name: str, x: np.ndarray, at: tuple[int, ...] = ()) -> np.ndarray:
        return self.norm_of(x, self[name + "/scale"][at], self[name + "/bias"][at])

    def _mlp(self, name: str, x: np.ndarray, at: tuple[int, ...] = ()) -> np.ndarray:
        for number in (0, 1):
            kernel, bias = self[f"{name}/Dense_{number}/kernel"], self[
                f"{name}/Dense_{number}/bias"
            ]  # fmt: skip
            x = x @ kernel[at] + bias[at]
            x = self.gelu(x) if number == 0 else x
        return x

    def _attention(
        self, name: str, queries: np.ndarray, x: np.ndarray, at: tuple[int, ...] = ()
    ) -> np.ndarray:
        parts = []
        for part, tokens in (("query", queries), ("key", x), ("value", x)):
            kernel = self[f"{name}/{part}/kernel"][at]
            bias = self[f"{name}/{part}/bias"][at]
            flat = kernel.reshape(kernel.shape[0], -1)
            parts.append(tokens @ flat + bias.reshape(-1))
        out = self[f"{name}/out/kernel"][at]
        return (
            self.attend(*parts) @ out.reshape(-1, out.shape[-1])
            + self[f"{name}/out/bias"][at]
        )
