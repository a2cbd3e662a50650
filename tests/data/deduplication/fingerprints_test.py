"""Small pictures, their parts, and how alike two are."""
# SPDX-License-Identifier: Apache-2.0

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.data import sets
from vit_scaling.data.deduplication import fingerprints
from vit_scaling.data.deduplication.matching import NearDuplicates

PHOTO = sets.photograph()[:240, :320]


def test_small_pictures_have_one_size_and_white_for_clear():
    assert fingerprints.small_picture(sets.jpeg(PHOTO)).shape == (96, 96, 3)
    clear = np.dstack([PHOTO, np.zeros(PHOTO.shape[:2], np.uint8)])
    assert fingerprints.small_picture(sets.encoded(clear, "PNG")).min() == 255
    grey = sets.encoded(PHOTO[..., 0], "PNG")
    assert fingerprints.small_picture(grey).shape == (96, 96, 3)


def test_deep_grey_is_seen_as_its_upper_byte_and_not_as_white():
    seen = fingerprints.small_picture(sets.deep(PHOTO))
    plain = np.repeat(PHOTO.mean(-1).astype(np.uint8)[..., None], 3, axis=2)
    expected = fingerprints.small_picture(sets.encoded(plain, "PNG"))
    np.testing.assert_array_equal(seen, expected)


def test_evaluation_images_are_hashed_as_crops_and_mirrored():
    one = fingerprints.of_evaluation(sets.jpeg(PHOTO))
    parts = len(one.hashes)
    assert parts == len(one.boxes) == len(one.flipped) == len(one.certain)
    assert one.flipped.sum() * 2 == parts
    sides = one.boxes[:, 2:] - one.boxes[:, :2]
    assert sides.min() > 0.88  # The last may be what lies inside a frame.
    mirrored = fingerprints.of_evaluation(sets.jpeg(PHOTO[:, ::-1], 95))
    apart = np.bitwise_count(mirrored.hashes[0] ^ one.hashes[one.flipped])
    assert apart.min() <= 4


def test_a_border_is_found_and_what_lies_inside_is_hashed():
    image = Image.fromarray(PHOTO)
    buffer = io.BytesIO()
    ImageOps.expand(image, 20, (255, 0, 200)).save(buffer, "PNG")
    one = fingerprints.of_training(buffer.getvalue())
    inside = one.boxes[-1]
    np.testing.assert_allclose(
        inside, [20 / 360, 20 / 280, 340 / 360, 260 / 280], atol=0.012
    )
    plain = fingerprints.of_training(sets.encoded(PHOTO, "PNG"))
    apart = (one.hashes[-1] ^ plain.hashes[0]) & plain.certain[0]
    assert int(apart).bit_count() <= 6


def test_likeness_is_the_correlation_of_pixels():
    one = fingerprints.part(
        fingerprints.small_picture(sets.jpeg(PHOTO)), fingerprints.WHOLE, flipped=False
    )
    assert fingerprints.likeness(one, 0.5 * one + 20) == pytest.approx(1, abs=1e-5)
    assert fingerprints.likeness(one, -one) == pytest.approx(-1, abs=1e-5)
    other = one[::-1]
    whole = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    centred = [(x - x.mean((0, 1))).ravel() for x in (one, other)]
    expected = min(whole, np.corrcoef(*centred)[0, 1])
    assert fingerprints.likeness(one, other) == pytest.approx(expected, abs=1e-4)


def test_a_common_tint_makes_no_likeness():
    generator = np.random.default_rng(0)
    tint = np.array([10, 90, 200], np.float32)
    one, other = (tint + generator.normal(0, 9, (28, 28, 3)) for _ in range(2))
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.95
    assert abs(fingerprints.likeness(one, other)) < 0.1


def test_pictures_of_one_colour_are_alike_if_the_colour_is():
    red = np.zeros((28, 28, 3), np.float32)
    red[..., 0] = 200
    assert fingerprints.likeness(red, red + 5) == 1.0
    assert fingerprints.likeness(red, red[..., ::-1]) == -1.0


def test_parts_are_cut_and_mirrored():
    pixels = fingerprints.small_picture(sets.jpeg(PHOTO))
    left = fingerprints.part(pixels, (0, 0, 0.5, 1), flipped=False)
    assert left.shape == (28, 28, 3)
    turned = fingerprints.part(pixels, (0, 0, 0.5, 1), flipped=True)
    np.testing.assert_array_equal(turned, left[:, ::-1])
    right = fingerprints.part(pixels[:, ::-1], (0.5, 0, 1, 1), flipped=True)
    np.testing.assert_allclose(right, left, atol=2)


def test_a_picture_that_differs_in_one_place_is_no_copy():
    one = fingerprints.part(
        fingerprints.small_picture(sets.jpeg(PHOTO)), fingerprints.WHOLE, flipped=False
    )
    assert not fingerprints.differ_somewhere(one, 0.7 * one + 30)
    generator = np.random.default_rng(0)
    noisy = one + generator.normal(0, 8, one.shape).astype(np.float32)
    assert not fingerprints.differ_somewhere(one, noisy)
    changed = one.copy()
    changed[7:14, 7:14] = 255 - changed[7:14, 7:14]  # A sixteenth.
    assert fingerprints.likeness(one, changed) > 0.8
    assert fingerprints.differ_somewhere(one, changed)


def test_parts_that_show_nothing_are_left_out():
    """A drawing in a corner has crops without it, which are alike for all drawings."""
    pixels = np.full((fingerprints.SIDE, fingerprints.SIDE, 3), 255, np.uint8)
    pixels[4:10, 40:50] = (20, 20, 200)
    seen = fingerprints.of_evaluation(sets.encoded(pixels, "PNG"))
    blank = fingerprints.of_training(sets.encoded(np.full_like(pixels, 255), "PNG"))
    for box, flipped in zip(seen.boxes[1:], seen.flipped[1:], strict=True):
        if tuple(box) != fingerprints.WHOLE:
            assert fingerprints.part(pixels, box, flipped=bool(flipped)).std() > 3
    match = NearDuplicates(["seen"], [seen]).match
    assert match(blank) is None
    assert match(fingerprints.of_training(sets.jpeg(pixels, 90))) is not None


def test_faint_pictures_keep_their_parts():
    faint = (PHOTO.astype(np.float32) - PHOTO.mean()) / PHOTO.std() * 4.5 + 128
    shown = fingerprints.of_evaluation(
        sets.encoded(faint.clip(0, 255).astype(np.uint8), "PNG")
    )
    assert len(shown.hashes) >= 38  # The whole and 18 crops, mirrored too.
