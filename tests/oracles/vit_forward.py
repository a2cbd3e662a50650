"""A Vision Transformer's forward pass in float64 NumPy, written from the paper's facts.

Slow and plain on purpose: loops over patches, blocks and heads, one formula per line.
`weights` maps variable paths to arrays; everything else is an argument.
"""
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Mapping

import numpy as np

Weights = Mapping[str, np.ndarray]


def vit_forward(
    images: np.ndarray,
    weights: Weights,
    *,
    heads: int,
    depth: int,
    head: str,
    position: str = "learned",
    approximate_gelu: bool = True,
    epsilon: float = 1e-6,
) -> dict[str, np.ndarray]:
    """Return encoder_norm, pre_logits and logits."""
    w = {path: np.asarray(value, np.float64) for path, value in weights.items()}
    settings = {"heads": heads, "epsilon": epsilon, "approximate": approximate_gelu}
    x, grid = stem(np.asarray(images, np.float64), w)
    learned = position == "learned"
    x = x + (
        w["position_embedding/embedding"] if learned else sincos2d(*grid, x.shape[-1])
    )
    x, tokens = with_extra_tokens(x, w)
    if "embedding_norm/gamma" in w:
        x = norm(x, w, "embedding_norm", epsilon)
    for number in range(depth):
        x = block(x, w, f"block_{number:02d}", **settings)
    x = norm(x, w, "encoder_norm", epsilon)[:, :tokens]
    out = {"encoder_norm": x}
    x = pooled(x, w, head, settings)
    if "pre_logits/kernel" in w:
        x = np.tanh(x @ w["pre_logits/kernel"] + w["pre_logits/bias"])
    out["pre_logits"] = x
    if "head/kernel" in w:
        out["head"] = x @ w["head/kernel"] + w["head/bias"]
    return out


def with_extra_tokens(x, w):
    """Put the class token first, registers last; return the count without these."""
    if "class_token/token" in w:
        x = np.concatenate([np.repeat(w["class_token/token"], len(x), axis=0), x], 1)
    tokens = x.shape[1]
    if "register_tokens/tokens" in w:
        registers = np.repeat(w["register_tokens/tokens"], len(x), axis=0)
        x = np.concatenate([x, registers], axis=1)
    return x, tokens


def pooled(x, w, head, settings):
    if head == "token":
        return x[:, 0]
    if head == "gap":
        return x.mean(axis=1)
    return map_head(x, w, **settings) if head == "map" else x


def stem(images: np.ndarray, w: Weights) -> tuple[np.ndarray, tuple[int, int]]:
    """Cut whole patches, multiply each with the kernel and sum."""
    kernel, bias = w["patch_embedding/kernel"], w["patch_embedding/bias"]
    p = kernel.shape[0]
    rows, columns = images.shape[1] // p, images.shape[2] // p
    tokens = np.empty((len(images), rows * columns, kernel.shape[-1]))
    for row in range(rows):
        for column in range(columns):
            patch = images[:, row * p : (row + 1) * p, column * p : (column + 1) * p]
            tokens[:, row * columns + column] = (
                np.tensordot(patch, kernel, axes=([1, 2, 3], [0, 1, 2])) + bias
            )
    return tokens, (rows, columns)


def sincos2d(rows: int, columns: int, width: int) -> np.ndarray:
    """Give each token [sin x, cos x, sin y, cos y] at omega_i = 10000^(-i/(D/4-1))."""
    quarter = width // 4
    out = np.empty((1, rows * columns, width))
    for y in range(rows):
        for x in range(columns):
            for i in range(quarter):
                omega = 10000.0 ** (-i / (quarter - 1))
                out[0, y * columns + x, i::quarter] = [
                    math.sin(x * omega),
                    math.cos(x * omega),
                    math.sin(y * omega),
                    math.cos(y * omega),
                ]
    return out


def block(x, w, name, *, heads, epsilon, approximate):
    y = norm(x, w, f"{name}/attention_norm", epsilon)
    y = attention(y, y, w, f"{name}/attention", heads, epsilon)
    x = x + y * w.get(f"{name}/attention_scale/gamma", 1.0)
    y = mlp(norm(x, w, f"{name}/mlp_norm", epsilon), w, f"{name}/mlp", approximate)
    return x + y * w.get(f"{name}/mlp_scale/gamma", 1.0)


def map_head(x, w, *, heads, epsilon, approximate):
    probe = np.repeat(w["map_head/probe"], len(x), axis=0)
    y = attention(probe, x, w, "map_head/attention", heads, epsilon)
    z = y + mlp(norm(y, w, "map_head/norm", epsilon), w, "map_head/mlp", approximate)
    return z[:, 0]


def attention(queries, tokens, w, name, heads, epsilon):
    out = np.zeros_like(queries) + w[f"{name}/out/bias"]
    for head in range(heads):
        q, k, v = (
            source @ w[f"{name}/{part}/kernel"][:, head]
            + w[f"{name}/{part}/bias"][head]
            for part, source in (("query", queries), ("key", tokens), ("value", tokens))
        )
        if f"{name}/query_norm/gamma" in w:
            q = norm(q, w, f"{name}/query_norm", epsilon)
            k = norm(k, w, f"{name}/key_norm", epsilon)
        logits = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        out = out + weights @ v @ w[f"{name}/out/kernel"][head]
    return out


def mlp(x, w, name, approximate):
    hidden = x @ w[f"{name}/dense_0/kernel"] + w[f"{name}/dense_0/bias"]
    hidden = gelu(hidden, approximate)
    return hidden @ w[f"{name}/dense_1/kernel"] + w[f"{name}/dense_1/bias"]


def gelu(x, approximate):
    if approximate:
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1.0 + np.tanh(inner))
    return 0.5 * x * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


def norm(x, w, name, epsilon):
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    return scaled * w[f"{name}/gamma"] + w[f"{name}/beta"]
