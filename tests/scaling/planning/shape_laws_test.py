"""Shape laws: planted exponents are found, shapes grow as the authors say."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.scaling.planning.flops import parameters
from vit_scaling.scaling.planning.shape_laws import fit_shape_law, scale_shape


def star_arm(a, b, c, *, noise=0.0):
    """Return sizes, computes and errors of the formula itself."""
    size, compute = np.meshgrid([608, 768, 928, 1088, 1328, 1648], [1e18, 2e18, 4e18])
    size, compute = size.ravel().astype(float), compute.ravel()
    x, t = size / 1000, compute / 2e18
    error = 0.1 * x**-a + (0.12 * x**b + 0.05) * t**-c + 0.1
    generator = np.random.default_rng(0)
    return size, compute, error * np.exp(noise * generator.standard_normal(len(error)))


@pytest.mark.parametrize(("a", "b", "c"), [(0.8, 0.9, 0.4), (1.5, 0.5, 0.6)])
def test_the_best_size_and_its_growth_are_recovered(a, b, c):
    size, compute, error = star_arm(a, b, c)
    law = fit_shape_law(size, compute, error)
    assert law.converged
    assert law.rms_relative_error < 1e-3
    grid = np.geomspace(300, 4000, 20_000)
    x = grid / 1000
    truth = grid[np.argmin(0.1 * x**-a + 0.12 * x**b)]
    assert law.best(2e18) == pytest.approx(truth, rel=0.05)
    assert law.exponent == pytest.approx(c / (a + b), rel=0.15)


def test_growth_is_the_authors_two_and_a_half_times_per_ten():
    start = ViTShape(14, 1152, 27, 4304, 16)
    grown = scale_shape(start, 10, multiple=1)
    blocks = [
        parameters(shape, classes=None).terms["attention"]
        + parameters(shape, classes=None).terms["mlp"]
        for shape in (start, grown)
    ]
    assert 2.2 < blocks[1] / blocks[0] < 2.9


def test_a_scaled_shape_keeps_its_heads_and_its_multiples():
    grown = scale_shape(ViTShape(14, 608, 10, 928, 16), 30)
    assert grown.heads == 16
    assert grown.width % 16 == grown.mlp_width % 16 == 0
    assert scale_shape(grown, 1.0) == grown


def test_an_arm_without_minimum_is_no_law():
    size, compute, _ = star_arm(1, 1, 1)
    law = fit_shape_law(size, compute, 0.5 * np.ones_like(size))
    if not law.converged:
        with pytest.raises(RuntimeError, match="Widen its grid"):
            _ = law.exponent
    else:
        pytest.fail("a flat arm must not give a law")


def test_bad_arms_are_explained():
    with pytest.raises(ValueError, match="lists of equal length"):
        fit_shape_law(np.ones(3), np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="must be above 0"):
        fit_shape_law(np.zeros(9), np.ones(9), np.ones(9))
    with pytest.raises(ValueError, match="at least 8 runs over 3 sizes"):
        fit_shape_law(np.ones(9), np.ones(9), np.ones(9))
    with pytest.raises(ValueError, match="`factor` must be above 0"):
        scale_shape(ViTShape(14, 608, 10, 928, 16), 0)
