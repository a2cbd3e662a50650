"""Parts of thumbnails, and how alike two are."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.data import sets
from vit_scaling.data.deduplication import fingerprints, likeness

PHOTO = sets.photograph()[:240, :320]


def test_likeness_is_the_correlation_of_pixels():
    one = likeness.cut_part(
        fingerprints.make_thumbnail(sets.jpeg(PHOTO)),
        likeness.WHOLE_IMAGE,
        mirrored=False,
    )
    assert likeness.compute_likeness(one, 0.5 * one + 20) == pytest.approx(1, abs=1e-5)
    assert likeness.compute_likeness(one, -one) == pytest.approx(-1, abs=1e-5)
    other = one[::-1]
    whole = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    centred = [(x - x.mean((0, 1))).ravel() for x in (one, other)]
    expected = min(whole, np.corrcoef(*centred)[0, 1])
    assert likeness.compute_likeness(one, other) == pytest.approx(expected, abs=1e-4)


def test_a_common_tint_does_not_make_images_alike():
    generator = np.random.default_rng(0)
    tint = np.array([10, 90, 200], np.float32)
    one, other = (tint + generator.normal(0, 9, (28, 28, 3)) for _ in range(2))
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.95
    assert abs(likeness.compute_likeness(one, other)) < 0.1


def test_images_of_one_colour_are_alike_if_their_colours_are():
    red = np.zeros((28, 28, 3), np.float32)
    red[..., 0] = 200
    assert likeness.compute_likeness(red, red + 5) == 1.0
    assert likeness.compute_likeness(red, red[..., ::-1]) == -1.0


def test_parts_are_cut_and_mirrored():
    pixels = fingerprints.make_thumbnail(sets.jpeg(PHOTO))
    left = likeness.cut_part(pixels, (0, 0, 0.5, 1), mirrored=False)
    assert left.shape == (28, 28, 3)
    turned = likeness.cut_part(pixels, (0, 0, 0.5, 1), mirrored=True)
    np.testing.assert_array_equal(turned, left[:, ::-1])
    right = likeness.cut_part(pixels[:, ::-1], (0.5, 0, 1, 1), mirrored=True)
    np.testing.assert_allclose(right, left, atol=2)


def test_an_image_that_differs_in_one_place_is_not_a_copy():
    one = likeness.cut_part(
        fingerprints.make_thumbnail(sets.jpeg(PHOTO)),
        likeness.WHOLE_IMAGE,
        mirrored=False,
    )
    assert not likeness.differs_locally(one, 0.7 * one + 30)
    generator = np.random.default_rng(0)
    noisy = one + generator.normal(0, 8, one.shape).astype(np.float32)
    assert not likeness.differs_locally(one, noisy)
    changed = one.copy()
    changed[7:14, 7:14] = 255 - changed[7:14, 7:14]  # A sixteenth.
    assert likeness.compute_likeness(one, changed) > 0.8
    assert likeness.differs_locally(one, changed)
