"""The steps that all references share equal SciPy's, or a loop."""
# SPDX-License-Identifier: Apache-2.0

import math

import numpy as np
import pytest
from scipy import special

from vit_scaling.applications.formats.numpy_reference import NumpyReference
from vit_scaling.applications.formats.vit_weights import ViTWeights
from vit_scaling.modeling.shapes import ViTShape


class Bare(NumpyReference):
    def embed(self, images):
        return images

    def block(self, x, number):
        return x

    def attention_pool(self, x):
        return x


def steps(arrays=None, prefix="", **arguments):
    shape = ViTShape(patch=2, width=6, depth=1, mlp_width=4, heads=3)
    weights = ViTWeights("x", {"head": "gap", "shape": shape, **arguments}, {})
    return Bare(arrays or {}, weights, prefix)


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def test_gelu_is_of_erf_or_its_approximation():
    x = np.linspace(-4, 4, 81)
    exact = x * special.ndtr(x)  # x times the normal distribution's function.
    np.testing.assert_allclose(steps(approximate_gelu=False).gelu(x), exact, atol=1e-12)
    near = steps(approximate_gelu=True).gelu(x)
    assert 1e-5 < np.abs(near - exact).max() < 1e-3


def test_norm_has_mean_zero_and_variance_one_before_gain_and_shift():
    x = normal(4, 5, 6) * 3 + 2
    arrays = {"n.weight": np.full(6, 2.0), "n.bias": np.ones(6)}
    forward = steps(arrays, norm_epsilon=1e-12)
    out = forward.normalize(x)
    np.testing.assert_allclose(out.mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(out.std(-1), 1, atol=1e-9)
    np.testing.assert_allclose(forward.norm("n", x), 2 * out + 1)
    # Epsilon is added to the variance.
    damped = steps(norm_epsilon=3.0).normalize(x)
    variance = x.var(-1, keepdims=True)
    np.testing.assert_allclose(damped, out * np.sqrt(variance / (variance + 3)))


def test_attention_is_a_softmax_average_per_head():
    q, k, v = normal(2, 4, 6), normal(2, 5, 6) + 1, normal(2, 5, 6) * 2
    found = steps().attend(q, k, v)
    for image in range(2):
        for head in range(3):
            part = slice(2 * head, 2 * head + 2)
            for query in range(4):
                scores = k[image, :, part] @ q[image, query, part] / math.sqrt(2)
                wanted = special.softmax(scores) @ v[image, :, part]
                np.testing.assert_allclose(found[image, query, part], wanted)


def test_patches_are_products_of_pixels_and_kernel_and_the_rest_is_cropped():
    images, kernel = normal(2, 5, 7, 3), normal(2, 2, 3, 4)
    found = steps().convolve_patches(images, kernel)
    assert found.shape == (2, 2 * 3, 4)
    for row in range(2):
        for column in range(3):
            square = images[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            wanted = np.tensordot(square, kernel, 3)
            np.testing.assert_allclose(found[:, 3 * row + column], wanted)


def test_arrays_behind_the_prefix_are_used():
    arrays = {"tower.mark": np.ones(2, np.float32), "other": np.zeros(1)}
    forward = steps(arrays, prefix="tower.")
    assert set(forward.arrays) == {"mark"}
    assert forward["mark"].dtype == np.float64


def test_fused_layers_are_split():
    class Fused(Bare):
        fused = {"kv.": ("k.", "v.")}  # noqa: RUF012

    arrays = {"a.kv.weight": np.arange(8.0).reshape(4, 2)}
    forward = Fused(arrays, steps().weights)
    np.testing.assert_array_equal(forward["a.v.weight"], [[4, 5], [6, 7]])


def test_steps_alone_are_no_model():
    with pytest.raises(TypeError, match="abstract"):
        NumpyReference({}, steps().weights)
