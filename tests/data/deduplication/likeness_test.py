"""Parts of thumbnails, and how alike two are."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from PIL import Image

from tests.data import sets
from vit_scaling.data.deduplication import fingerprints, likeness

PHOTO = sets.photograph()[:240, :320]


def cut(thumbnail, box=likeness.WHOLE_IMAGE, *, mirrored=False):
    return likeness.cut_part(thumbnail, box, mirrored=mirrored).pixels


def alike(one, other):
    return likeness.Part(one).likeness(likeness.Part(other))


def differs(one, other):
    return likeness.differs_locally(likeness.Part(one), likeness.Part(other))


def test_a_grey_copy_is_like_its_original():
    one = cut(fingerprints.make_thumbnail(sets.jpeg(PHOTO)))
    grey = np.asarray(Image.fromarray(PHOTO).convert("L").convert("RGB"))
    copy = cut(fingerprints.make_thumbnail(sets.jpeg(grey, 40)))
    assert alike(one, copy) > 0.98 and alike(copy, one) > 0.98
    assert not differs(one, copy)
    turned = one[..., [2, 0, 1]]  # Other colours are no copy, and are not grey.
    assert alike(one, turned) < 0.94


def test_likeness_is_the_correlation_of_pixels():
    one = cut(fingerprints.make_thumbnail(sets.jpeg(PHOTO)))
    assert alike(one, 0.5 * one + 20) == pytest.approx(1, abs=1e-5)
    assert alike(one, -one) == pytest.approx(-1, abs=1e-5)
    other = one[::-1]
    whole = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    centred = [(x - x.mean((0, 1))).ravel() for x in (one, other)]
    expected = min(whole, np.corrcoef(*centred)[0, 1])
    assert alike(one, other) == pytest.approx(expected, abs=1e-4)


def test_a_common_tint_does_not_make_images_alike():
    generator = np.random.default_rng(0)
    tint = np.array([10, 90, 200], np.float32)
    one, other = (tint + generator.normal(0, 9, (28, 28, 3)) for _ in range(2))
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.95
    assert abs(alike(one, other)) < 0.1


def test_images_of_one_colour_are_alike_if_their_colours_are():
    red = np.zeros((28, 28, 3), np.float32)
    red[..., 0] = 200
    assert alike(red, red + 5) == 1.0
    assert alike(red, red[..., ::-1]) == -1.0


def test_parts_are_cut_and_mirrored():
    pixels = fingerprints.make_thumbnail(sets.jpeg(PHOTO))
    left = cut(pixels, (0, 0, 0.5, 1), mirrored=False)
    assert left.shape == (28, 28, 3)
    turned = cut(pixels, (0, 0, 0.5, 1), mirrored=True)
    np.testing.assert_array_equal(turned, left[:, ::-1])
    right = cut(pixels[:, ::-1], (0.5, 0, 1, 1), mirrored=True)
    np.testing.assert_allclose(right, left, atol=2)


def test_an_image_that_differs_in_one_place_is_not_a_copy():
    one = cut(fingerprints.make_thumbnail(sets.jpeg(PHOTO)))
    assert not differs(one, 0.7 * one + 30)
    generator = np.random.default_rng(0)
    noisy = one + generator.normal(0, 8, one.shape).astype(np.float32)
    assert not differs(one, noisy)
    changed = one.copy()
    changed[7:14, 7:14] = 255 - changed[7:14, 7:14]  # A sixteenth.
    assert alike(one, changed) > 0.8
    assert differs(one, changed)


def test_contrasts_of_boxes_are_the_standard_deviations():
    thumbnail = fingerprints.make_thumbnail(sets.jpeg(PHOTO))
    boxes = [likeness.WHOLE_IMAGE, (0.0, 0.25, 0.5, 1.0)]
    found = likeness.compute_contrasts(thumbnail, boxes)
    parts = thumbnail[6:90, 6:90], thumbnail[28:92, 3:45]  # A sixteenth is left out.
    expected = [(part - part.mean((0, 1))).std() for part in parts]
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_a_line_of_text_is_left_out_and_a_larger_change_is_not():
    one = cut(fingerprints.make_thumbnail(sets.jpeg(PHOTO)))
    for rows in (3, 8):
        changed = one.copy()
        changed[10 : 10 + rows, 3:20] = 255
        parts = likeness.leave_out_line(likeness.Part(one), likeness.Part(changed))
        assert parts[0].pixels.shape == (24, 28, 3)
        assert (parts[0].likeness(parts[1]) > 0.96) == (rows == 3)
