"""Layers for TPUs equal those for CPUs up to rounding."""
# SPDX-License-Identifier: Apache-2.0

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.modeling.small import randomized, relative_error
from vit_scaling import backend
from vit_scaling.modeling.attention import Attention, attend
from vit_scaling.modeling.layers import LayerNorm, PatchEmbedding
from vit_scaling.modeling.vit import vit


def uniform(*shape: int) -> tf.Tensor:
    # Seeded by `conftest.py` before every test.
    return tf.constant(np.random.uniform(-1, 1, shape), tf.float32)  # noqa: NPY002


def outputs_and_gradients(function, inputs, variables=()):
    """Return what a function gives, and gradients of a sum weighted at random."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        out = function(*inputs)
        weights = np.random.default_rng(1).uniform(-1, 1, out.shape)
        total = tf.reduce_sum(tf.cast(out, tf.float32) * weights)
    sources = [*inputs, *(variable.value for variable in variables)]
    return [out, *tape.gradient(total, sources)]


def assert_both_forms_agree(function, inputs, variables=(), tolerance=2e-6):
    here = outputs_and_gradients(function, inputs, variables)
    with backend.lowering_for_tpu():
        there = outputs_and_gradients(function, inputs, variables)
    # Some gradients are zero but for rounding, such as that of the keys' bias.
    scale = max(np.max(np.abs(one)) for one in here)
    for one, other in zip(here, there, strict=True):
        if np.max(np.abs(one)) > 1e-2 * scale:
            assert relative_error(other, one) < tolerance
        assert np.max(np.abs(other - one)) < tolerance * scale


@pytest.mark.parametrize("queries", [1, 7])
def test_attention_and_its_gradients_agree(queries):
    inputs = [uniform(2, queries, 3, 8), uniform(2, 7, 3, 8), uniform(2, 7, 3, 8)]
    assert_both_forms_agree(attend, inputs)


@pytest.mark.parametrize("batch", [2, 20], ids=["separate", "stacked"])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_self_attention_agrees_for_few_and_many_tokens(batch, qk_norm):
    """Many tokens are projected by one product, few by three: width 24, 5 tokens."""
    layer = Attention(heads=3, qk_norm=qk_norm, seed=0)
    layer.build((None, 5, 24))
    for number, variable in enumerate(layer.trainable_variables):
        noise = np.random.default_rng([1, number]).normal(size=variable.shape)
        variable.assign(variable + 0.1 * noise)
    inputs = [uniform(batch, 5, 24)]
    assert_both_forms_agree(layer, inputs, layer.trainable_variables, tolerance=5e-6)


def test_attention_is_finite_with_large_logits():
    k, v = uniform(2, 5, 2, 8), uniform(2, 5, 2, 8)
    # A logit of 10 is known to 1e-6, and so its weight.
    assert_both_forms_agree(attend, [10.0 * uniform(2, 5, 2, 8), k, v], tolerance=1e-4)
    with backend.lowering_for_tpu():
        far = outputs_and_gradients(attend, [1e4 * uniform(2, 5, 2, 8), k, v])
    assert all(np.isfinite(part).all() for part in far)


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_layer_norms_agree_also_away_from_zero(offset):
    layer = LayerNorm(epsilon=1e-6)
    layer.build((None, 6, 32))
    randomized(layer)
    inputs = [uniform(2, 6, 32) + offset]
    # Sums of squares lose digits where the mean is far above the deviation.
    tolerance = 2e-6 if not offset else 2e-3
    assert_both_forms_agree(layer, inputs, layer.trainable_variables, tolerance)


def test_a_constant_row_has_no_negative_variance():
    layer = LayerNorm(epsilon=1e-6)
    with backend.lowering_for_tpu():
        out = layer(tf.fill((1, 3, 32), 1234.567))
    assert np.isfinite(out.numpy()).all()


def test_patches_agree_on_images_with_partial_patches():
    layer = PatchEmbedding(width=12, patch=4)
    layer.build((None, 10, 13, 3))
    assert_both_forms_agree(layer, [uniform(2, 10, 13, 3)], layer.trainable_variables)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_whole_model_agrees_with_its_gradients(dtype):
    model = randomized(
        vit("mu/8", image_size=32, classes=5, dtype=dtype, rematerialize="all", seed=0)
    )
    # Roundings to 8 bits add up over a block and its gradient.
    tolerance = 2e-5 if dtype == "float32" else 6e-2
    assert_both_forms_agree(
        lambda images: model(images, training=True),
        [uniform(2, 32, 32, 3)],
        model.trainable_variables,
        tolerance,
    )


def test_the_implementation_is_selected_at_tracing():
    model = vit("mu/8", image_size=32, classes=5)
    spec = tf.TensorSpec((2, 32, 32, 3), tf.float32)

    def operations():
        traced = tf.function(lambda x: model(x)).get_concrete_function(spec)
        return {operation.type for operation in traced.graph.get_operations()}

    assert "Conv2D" not in operations()
    with backend.lowering_for_tpu():
        assert "Conv2D" in operations()
    assert "Conv2D" not in operations()


def test_norms_are_saved_and_loaded_as_before():
    layer = LayerNorm(epsilon=1e-6, name="norm")
    again = LayerNorm.from_config(layer.get_config())
    assert isinstance(again, keras.layers.LayerNormalization)
    assert again.epsilon == 1e-6
