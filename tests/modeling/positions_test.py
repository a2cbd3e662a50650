"""Sin-cos positions against plain loops, resampling against scipy's zoom."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import scipy.ndimage

from tests.oracles.vit_forward import sincos2d
from vit_scaling.modeling import positions


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((16, 16), (27, 27)),
        ((16, 16), (37, 37)),
        ((14, 14), (24, 24)),
        ((7, 7), (7, 12)),
        ((5, 3), (4, 9)),
        ((24, 24), (14, 14)),
        ((3, 3), (1, 1)),
        ((1, 1), (3, 3)),
    ],
)
def test_resampling_equals_scipys_linear_zoom(old, new):
    generator = np.random.default_rng(0)
    grid = generator.standard_normal((*old, 6)).astype(np.float32)
    zoom = (new[0] / old[0], new[1] / old[1], 1)
    expected = scipy.ndimage.zoom(grid, zoom, order=1).reshape(1, -1, 6)
    actual = positions.resample(grid.reshape(1, -1, 6), new, old_grid=old)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


def test_a_square_is_assumed_and_the_same_grid_is_unchanged():
    embedding = np.random.default_rng(0).standard_normal((1, 9, 4)).astype(np.float32)
    np.testing.assert_array_equal(positions.resample(embedding, (3, 3)), embedding)
    assert positions.resample(embedding, (5, 4)).shape == (1, 20, 4)


def test_the_corners_stay():
    embedding = np.arange(9, dtype=np.float32).reshape(1, 9, 1)
    larger = positions.resample(embedding, (7, 7)).reshape(7, 7)
    assert (larger[0, 0], larger[0, -1], larger[-1, 0], larger[-1, -1]) == (0, 2, 6, 8)


@pytest.mark.parametrize(
    ("shape", "old_grid", "message"),
    [
        ((1, 10, 4), None, r"must have 3 x 3 patches; received 10"),
        ((1, 9, 4), (2, 4), r"must have 2 x 4 patches; received 9"),
        ((9, 4), None, r"of shape \(1, patches, width\); received \(9, 4\)"),
    ],
)
def test_embeddings_that_do_not_match_a_grid_are_rejected(shape, old_grid, message):
    with pytest.raises(ValueError, match=message):
        positions.resample(np.zeros(shape), (4, 4), old_grid=old_grid)


@pytest.mark.parametrize(("grid", "width"), [((3, 5), 16), ((1, 1), 8), ((4, 2), 20)])
def test_sincos_positions_equal_the_loops(grid, width):
    actual = positions.sincos(grid, width)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, sincos2d(*grid, width), rtol=0, atol=1e-6)


def test_sincos_positions_need_a_width_divisible_by_4():
    with pytest.raises(ValueError, match="multiple of 4 and at least 8; received 10"):
        positions.sincos((2, 2), 10)
