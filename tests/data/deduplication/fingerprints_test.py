"""Thumbnails of images, and hashes of their parts."""
# SPDX-License-Identifier: Apache-2.0

import io

import numpy as np
from PIL import Image, ImageOps

from tests.data import sets
from vit_scaling.data.deduplication import fingerprints, likeness
from vit_scaling.data.deduplication.matching import NearDuplicateIndex, Thresholds

PHOTO = sets.photograph()[:240, :320]


def test_small_pictures_have_one_size_and_white_for_clear():
    assert fingerprints.make_thumbnail(sets.jpeg(PHOTO)).shape == (96, 96, 3)
    clear = np.dstack([PHOTO, np.zeros(PHOTO.shape[:2], np.uint8)])
    assert fingerprints.make_thumbnail(sets.encoded(clear, "PNG")).min() == 255
    grey = sets.encoded(PHOTO[..., 0], "PNG")
    assert fingerprints.make_thumbnail(grey).shape == (96, 96, 3)


def test_16_bit_grey_is_reduced_to_its_upper_byte():
    seen = fingerprints.make_thumbnail(sets.deep(PHOTO))
    plain = np.repeat(PHOTO.mean(-1).astype(np.uint8)[..., None], 3, axis=2)
    expected = fingerprints.make_thumbnail(sets.encoded(plain, "PNG"))
    np.testing.assert_array_equal(seen, expected)


def test_evaluation_images_are_hashed_as_crops_and_mirrored():
    one = fingerprints.fingerprint_evaluation_image(sets.jpeg(PHOTO))
    parts = len(one.hashes)
    assert parts == len(one.boxes) == len(one.mirrored) == len(one.stable)
    assert one.mirrored.sum() * 2 == parts
    sides = one.boxes[:, 2:] - one.boxes[:, :2]
    assert sides.min() > 0.88  # The last may be what lies inside a frame.
    mirrored = fingerprints.fingerprint_evaluation_image(sets.jpeg(PHOTO[:, ::-1], 95))
    apart = np.bitwise_count(mirrored.hashes[0] ^ one.hashes[one.mirrored])
    assert apart.min() <= 4


def test_the_area_inside_a_border_is_hashed():
    image = Image.fromarray(PHOTO)
    buffer = io.BytesIO()
    ImageOps.expand(image, 20, (255, 0, 200)).save(buffer, "PNG")
    one = fingerprints.fingerprint_training_image(buffer.getvalue())
    inside = one.boxes[-1]
    np.testing.assert_allclose(
        inside, [20 / 360, 20 / 280, 340 / 360, 260 / 280], atol=0.012
    )
    plain = fingerprints.fingerprint_training_image(sets.encoded(PHOTO, "PNG"))
    apart = (one.hashes[-1] ^ plain.hashes[0]) & plain.stable[0]
    assert int(apart).bit_count() <= 6


def test_parts_without_contrast_are_left_out():
    """A drawing in a corner has crops without it, which are alike for all drawings."""
    pixels = np.full(
        (likeness.THUMBNAIL_SIDE, likeness.THUMBNAIL_SIDE, 3), 255, np.uint8
    )
    pixels[4:10, 40:50] = (20, 20, 200)
    seen = fingerprints.fingerprint_evaluation_image(sets.encoded(pixels, "PNG"))
    blank = fingerprints.fingerprint_training_image(
        sets.encoded(np.full_like(pixels, 255), "PNG")
    )
    for box, flipped in zip(seen.boxes[1:], seen.mirrored[1:], strict=True):
        if tuple(box) != likeness.WHOLE_IMAGE:
            assert (
                likeness.cut_part(pixels, box, mirrored=bool(flipped)).pixels.std() > 3
            )
    match = NearDuplicateIndex(["seen"], [seen], Thresholds()).find
    assert match(blank) is None
    assert (
        match(fingerprints.fingerprint_training_image(sets.jpeg(pixels, 90)))
        is not None
    )


def test_faint_images_keep_their_parts():
    faint = (PHOTO.astype(np.float32) - PHOTO.mean()) / PHOTO.std() * 4.5 + 128
    shown = fingerprints.fingerprint_evaluation_image(
        sets.encoded(faint.clip(0, 255).astype(np.uint8), "PNG")
    )
    assert len(shown.hashes) >= 38  # The whole and 18 crops, mirrored too.


def dct_hash(grey: Image.Image) -> int:
    """The definition, coefficient by coefficient, in float64."""
    x = np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    low = np.empty((8, 8))
    place = 2 * np.arange(32) + 1
    for i in range(8):
        for j in range(8):
            wave = np.outer(
                np.cos(np.pi * i * place / 64), np.cos(np.pi * j * place / 64)
            )
            low[i, j] = 4 * (x * wave).sum()
    bits = low > np.median(low)
    cells = [(i, j) for i in range(8) for j in range(8)]
    # Rings of squares around the lowest frequency, each by the sum of frequencies.
    cells.sort(key=lambda cell: (max(cell), sum(cell), cell[0]))
    return int("".join("1" if bits[cell] else "0" for cell in cells), 2)


def test_hashes_are_the_perceptual_hash_as_defined():
    for number in range(6):
        tile = sets.tile(number, likeness.THUMBNAIL_SIDE)
        found = fingerprints.fingerprint_whole_image(tile)
        grey = Image.fromarray(tile).convert("L")
        differing = int(found.hashes[0]) ^ dct_hash(grey)  # Pixels are not rounded.
        assert differing & int(found.stable[0]) == 0 and differing.bit_count() <= 2
        assert found.mirrored.tolist() == [False, True]
        mirror_image = grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        differing = int(found.hashes[1]) ^ dct_hash(mirror_image)
        assert differing & int(found.stable[1]) == 0
