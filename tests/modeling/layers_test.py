"""Initial values as in the authors' code, patches and GELU."""
# SPDX-License-Identifier: Apache-2.0

import functools
import math

import numpy as np
import pytest
import tensorflow as tf

from tests.modeling.small import relative_error
from vit_scaling.modeling import layers
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.vit import vit

WIDTH, HIDDEN = 128, 384
SHAPE = ViTShape(patch=8, width=WIDTH, depth=1, mlp_width=HIDDEN, heads=4)


@pytest.fixture(scope="module")
def initial():
    model = vit(SHAPE, "map", image_size=64, classes=10, representation_width=96)
    return {variable.path: np.asarray(variable) for variable in model.variables}


@pytest.mark.parametrize(
    ("path", "fans"),
    [
        *(
            (f"{parent}/attention/{part}/kernel", (WIDTH, WIDTH))
            for parent in ("block_00", "map_head")
            for part in ("query", "key", "value", "out")
        ),
        ("block_00/mlp/dense_0/kernel", (WIDTH, HIDDEN)),
        ("map_head/mlp/dense_1/kernel", (HIDDEN, WIDTH)),
        ("map_head/probe", (1, WIDTH)),
    ],
)
def test_xavier_uniform_over_the_flattened_matrix(initial, path, fans):
    values, limit = initial[path], math.sqrt(6.0 / sum(fans))
    assert np.abs(values).max() <= limit
    assert np.abs(values).max() > (0.999 if values.size > 1000 else 0.95) * limit
    # A uniform's deviation is limit / sqrt(3); 4 standard errors of it are allowed.
    deviation = limit / math.sqrt(3.0)
    allowed = 4 * deviation / math.sqrt(values.size)
    assert abs(values.std() - deviation) < allowed
    assert abs(values.mean()) < allowed


def test_the_stem_is_lecun_normal_and_truncated(initial):
    values, fan_in = initial["patch_embedding/kernel"], 8 * 8 * 3
    deviation = 1.0 / math.sqrt(fan_in)
    assert abs(values.std() - deviation) < 0.02 * deviation
    # Cut at two deviations of the normal before, which truncation narrows by 0.8796.
    assert np.abs(values).max() <= 2.0 * deviation / 0.8796


def test_positions_are_normal_with_deviation_one_over_root_width(initial):
    values = initial["position_embedding/embedding"]
    assert abs(values.std() * math.sqrt(WIDTH) - 1.0) < 0.03
    assert np.abs(values).max() * math.sqrt(WIDTH) > 3.0  # Not truncated.


def test_mlp_biases_are_tiny_and_others_zero(initial):
    for path, values in initial.items():
        if "/mlp/" in path and path.endswith("bias"):
            assert 0.7e-6 < values.std() < 1.3e-6
        elif path.endswith(("bias", "beta")) or path == "head/kernel":
            assert not values.any(), path
        elif path.endswith("gamma"):
            assert (values == 1.0).all(), path


def test_the_tanh_projection_is_lecun_normal(initial):
    values = initial["pre_logits/kernel"]
    assert abs(values.std() * math.sqrt(WIDTH) - 1.0) < 0.03


def test_patches_are_those_of_a_convolution_without_padding():
    layer = layers.PatchEmbedding(6, 4)
    images = np.random.default_rng(0).standard_normal((2, 11, 9, 3)).astype(np.float32)
    tokens = layer(images)
    kernel = tf.convert_to_tensor(layer.kernel)
    expected = tf.nn.conv2d(images, kernel, strides=4, padding="VALID")
    assert relative_error(tokens, tf.reshape(expected, (2, 4, 6))) < 1e-5


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("approximate", [True, False])
def test_gelu_and_its_gradient_equal_tensorflows(approximate, jit_compile):
    x = tf.constant(np.linspace(-9, 9, 181), tf.float32)
    results = []
    ours = functools.partial(layers.gelu, jit_compile=jit_compile)
    for gelu in (ours, tf.nn.gelu):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = gelu(x, approximate)
        results.append((y, tape.gradient(y, x)))
    for result, theirs in zip(*results, strict=True):
        # 1 + tanh cancels near -5: some units of 2^-24 times 5.
        np.testing.assert_allclose(result, theirs, rtol=1e-5, atol=5e-6)


def test_only_the_training_step_of_a_cpu_asks_for_xla():
    # Model servers may lack XLA: an export has no function that needs it.
    mlp = layers.Mlp(8)
    tokens = tf.zeros((1, 2, 4))
    mlp(tokens)

    def compiled(training):
        program = tf.function(lambda x: mlp(x, training=training))
        definition = program.get_concrete_function(tokens).graph.as_graph_def()
        attributes = [f.attr for f in definition.library.function]
        return any(a["_XlaMustCompile"].b for a in attributes if "_XlaMustCompile" in a)

    assert compiled(training=True)
    assert not compiled(training=False)
