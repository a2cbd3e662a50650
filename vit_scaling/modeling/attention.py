"""Multi-head dot-product attention."""
# SPDX-License-Identifier: Apache-2.0

from typing import Any

import tensorflow as tf

from vit_scaling import backend
from vit_scaling.modeling import noise, tpu
from vit_scaling.modeling.composite import CompositeLayer, Shape
from vit_scaling.modeling.layers import Projection, layer_norm, register


@register
class Attention(CompositeLayer):
    """Multi-head dot-product attention with biases (Vaswani et al. 2017).

    Args:
        heads: Number of heads; divides the tokens' width.
        qk_norm: Normalise queries and keys per head (Dehghani et al. 2023); off in
            the paper. Unlike in ViT-22B, the projections and the norms have biases.
        norm_epsilon: Epsilon of these two norms.
        chunk: Number of queries that attend at a time; see `attend`.
        seed: Seed of the initial values.
    """

    def __init__(
        self,
        heads: int,
        *,
        qk_norm: bool = False,
        norm_epsilon: float = 1e-6,
        chunk: int | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads = heads
        self.qk_norm = qk_norm
        self.norm_epsilon = norm_epsilon
        self.chunk = chunk
        self.seed = noise.seed_or_random(seed)

    def build(self, tokens_shape: Shape) -> None:
        """Create query, key, value and out projections."""
        width = tokens_shape[-1]
        head_dim = width // self.heads
        for name in ("query", "key", "value"):
            part = Projection(
                (width, self.heads, head_dim),
                "bnd,dhk->bnhk",
                bias_rank=2,
                # The key's bias adds the same number to all logits of a query, which
                # softmax cancels (as BEiT and Swin V2 say, which have none). Adam and
                # Adafactor would divide its gradient's noise by the noise's own size.
                bias_gradient=name != "key" or self.qk_norm,
                seed=noise.seed_for(self.seed, name),
                name=name,
                dtype=self.dtype_policy,
            )
            self.add_part(part)
        out = Projection(
            (self.heads, head_dim, width),
            "bnhk,hkd->bnd",
            seed=noise.seed_for(self.seed, "out"),
            name="out",
            dtype=self.dtype_policy,
        )
        self.add_part(out)
        for name in ("query_norm", "key_norm") if self.qk_norm else ():
            norm = layer_norm(name, self.norm_epsilon, self.dtype_policy)
            self.add_part(norm, (None, None, self.heads, head_dim))

    def call(self, tokens: tf.Tensor, queries: tf.Tensor | None = None) -> tf.Tensor:
        """Attend from `queries` (default: the tokens) to tokens.

        Args:
            tokens: (batch, tokens, width).
            queries: (batch, queries, width), or None for self-attention.

        Returns:
            (batch, queries, width).
        """
        parts = (self.query, self.key, self.value)
        if (
            queries is None
            and backend.targets_tpu()
            and not any(part.has_lora for part in parts)
        ):
            kernels = [tf.convert_to_tensor(part.kernel) for part in parts]
            products = tpu.project(tokens, kernels)
            q, k, v = (p.add_bias(y) for p, y in zip(parts, products, strict=True))
        else:
            q = self.query(tokens if queries is None else queries)
            k, v = self.key(tokens), self.value(tokens)
        # All are (batch, tokens, heads, head_dim).
        if self.qk_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        return self.out(attend(q, k, v, chunk=self.chunk))


def attend(
    q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, *, chunk: int | None = None
) -> tf.Tensor:
    """Return softmax(q kᵀ / sqrt(head_dim)) v, per example and head.

    With chunks the weights, one per query and token, exist for one chunk at a time. The
    backward pass computes them again from q and k (Rabe and Staats 2021).

    Args:
        q: (batch, queries, heads, head_dim).
        k: (batch, tokens, heads, head_dim).
        v: (batch, tokens, heads, head_dim).
        chunk: Number of queries that attend at a time; None: all.

    Returns:
        (batch, queries, heads, head_dim).
    """
    if chunk is None or q.shape[1] <= chunk:
        return _attend(q, k, v)
    parts = [q[:, i : i + chunk] for i in range(0, q.shape[1], chunk)]
    outputs = []
    for part in parts[:-1]:
        k, v, output = _attend_and_pass(part, k, v)
        outputs.append(output)
    outputs.append(tf.recompute_grad(_attend)(parts[-1], k, v))
    return tf.concat(outputs, axis=1)


@tf.recompute_grad
def _attend_and_pass(
    q: tf.Tensor, k: tf.Tensor, v: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return k, v and the attention of a chunk.

    The backward pass of a chunk starts when the gradient of the first output exists.
    This is the sum of those of all later chunks, so only one chunk exists at a time.
    """
    return k, v, _attend(q, k, v)


def _attend(q: tf.Tensor, k: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
    q = q * tf.cast(q.shape[-1] ** -0.5, q.dtype)
    if backend.targets_tpu():
        return tpu.attend(q, k, v)
    # Heads first, keys as columns: einsum's own layout takes longer on CPUs.
    q, v = (tf.transpose(x, (0, 2, 1, 3)) for x in (q, v))  # (batch, heads, …)
    k = tf.transpose(k, (0, 2, 3, 1))  # (batch, heads, head_dim, tokens)
    logits = tf.matmul(q, k)  # (batch, heads, queries, tokens)
    # Sums of hundreds of terms need float32; XLA fuses the casts.
    weights = tf.cast(tf.nn.softmax(tf.cast(logits, tf.float32)), v.dtype)
    return tf.transpose(tf.matmul(weights, v), (0, 2, 1, 3))
