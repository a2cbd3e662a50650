"""Attention against what TensorFlow derives, and from queries of another kind."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import math

import numpy as np
import pytest
import tensorflow as tf

from tests.modeling.small import relative_error
from vit_scaling import backend
from vit_scaling.modeling import attention


def test_attention_from_other_queries_is_attention_on_their_rows():
    layer = attention.Attention(heads=2)
    tokens = tf.constant(
        np.random.default_rng(0).standard_normal((2, 7, 8)), tf.float32
    )
    everything = layer(tokens)
    some = layer(tokens, tokens[:, 2:4])
    np.testing.assert_allclose(some, everything[:, 2:4], rtol=1e-5, atol=1e-6)


# Chunks of 2, 2 and 1 of five queries; as many as there are; more than there are.
@pytest.mark.parametrize("chunk", [None, 1, 2, 5, 8])
@pytest.mark.parametrize("tpu", [False, True])
def test_attention_and_its_gradient_equal_what_tensorflow_derives(chunk, tpu):
    def plain(q, k, v):  # In float64.
        logits = tf.einsum("bqhk,bnhk->bhqn", q, k) / math.sqrt(q.shape[-1])
        return tf.einsum("bhqn,bnhk->bqhk", tf.nn.softmax(logits), v)

    generator = np.random.default_rng(0)
    shapes = ((2, 5, 2, 8), (2, 7, 2, 8), (2, 7, 2, 8), (2, 5, 2, 8))
    q, k, v, upstream = (tf.constant(generator.standard_normal(s)) for s in shapes)

    def ours(q, k, v):
        with backend.lowering_for_tpu() if tpu else contextlib.nullcontext():
            return attention.attend(q, k, v, chunk=chunk)

    results = []
    for dtype, attend in ((tf.float32, ours), (tf.float64, plain)):
        inputs = [tf.cast(x, dtype) for x in (q, k, v)]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            out = attend(*inputs)
        d = tape.gradient(out, inputs, output_gradients=tf.cast(upstream, dtype))
        results.append([out, *d])
    for one, other in zip(*results, strict=True):
        assert relative_error(one, other) < 1e-5


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_gradient_of_a_key_bias_is_zero_as_softmax_makes_it(jit_compile):
    """Not noise, and not None. A norm after the bias makes it count."""
    tokens = tf.constant(
        np.random.default_rng(0).standard_normal((2, 7, 8)), tf.float32
    )
    for qk_norm in (False, True):
        layer = attention.Attention(heads=2, qk_norm=qk_norm)
        layer.build(tokens.shape)
        bias = np.random.default_rng(1).standard_normal((2, 4)).astype(np.float32)
        layer.key.bias.assign(bias)

        @tf.function(jit_compile=jit_compile)
        def output_and_gradient(layer=layer):
            with tf.GradientTape() as tape:
                output = layer(tokens)
                loss = tf.reduce_sum(output**2)
            return output, tape.gradient(loss, layer.key.bias.value)

        output, gradient = output_and_gradient()
        assert np.any(gradient.numpy()) == qk_norm
        layer.key.bias.assign(-2 * bias)
        changed = relative_error(output_and_gradient()[0], output)
        assert changed > 1e-3 if qk_norm else changed < 1e-5
