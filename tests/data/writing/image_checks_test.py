"""Images looked at once, when they are written."""
# SPDX-License-Identifier: Apache-2.0

import io

import numpy as np
import pytest
from PIL import Image

from tests.data import sets
from tests.data.bad_records_test import bomb, jpeg_bomb
from vit_scaling.data.writing.image_checks import (
    UnusableImage,
    check_image,
    to_eight_bits,
)

PHOTO = sets.tile(0)


def check(encoded, **options):
    return check_image(encoded, **{"max_pixels": 10**6, **options})


def test_a_good_image_keeps_its_bytes_and_has_its_size():
    encoded = sets.encoded(PHOTO[:20], "PNG")
    image = check(encoded)
    assert image.encoded == encoded
    assert (image.format, image.height, image.width) == ("PNG", 20, 24)


@pytest.mark.parametrize(
    ("mode", "kind", "channels"),
    [("L", "JPEG", 1), ("RGB", "JPEG", 3), ("CMYK", "JPEG", 4), ("RGBA", "PNG", 4)],
)
def test_channels_are_counted(mode, kind, channels):
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).convert(mode).save(buffer, kind)
    assert check(buffer.getvalue()).channels == channels


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "0 bytes"),
        (b"hello", "no known image format"),
        (sets.jpeg(PHOTO)[:200], "does not decode"),
        (bomb(), "60000×60000 is more than 1000000 pixels"),
        (jpeg_bomb(), "60000×60000 is more than 1000000 pixels"),
        (sets.encoded(PHOTO, "WEBP"), "format WEBP cannot be read in training"),
    ],
)
def test_unusable_images_raise_with_the_reason(encoded, reason):
    with pytest.raises(UnusableImage, match=reason):
        check(encoded)


def test_small_images_raise_if_asked():
    with pytest.raises(UnusableImage, match="24×24 has a side below 32"):
        check(sets.jpeg(PHOTO), min_side=32)


@pytest.mark.parametrize(("kind", "error"), [("png", 0), ("jpeg", 3)])
def test_reencoding_gives_rgb_of_the_same_image(kind, error):
    grey = Image.fromarray(PHOTO).convert("L")
    buffer = io.BytesIO()
    grey.save(buffer, "WEBP", lossless=True)
    image = check(buffer.getvalue(), reencode=kind, quality=98)
    assert (image.format, image.channels) == (kind.upper(), 3)
    with Image.open(io.BytesIO(image.encoded)) as result:
        apart = np.abs(np.asarray(result, float) - np.asarray(grey, float)[..., None])
    assert apart.mean() <= error


@pytest.mark.parametrize(
    ("kind", "number"), [("PNG", np.uint16), ("TIFF", np.uint16), ("TIFF", np.int32)]
)
def test_deep_grey_keeps_its_upper_byte(kind, number):
    image = check(sets.deep(PHOTO, kind, number), reencode="png")
    with Image.open(io.BytesIO(image.encoded)) as result:
        expected = np.repeat(PHOTO.mean(-1).astype(np.uint8)[..., None], 3, axis=2)
        np.testing.assert_array_equal(np.asarray(result), expected)


def test_other_images_stay_as_they_are():
    image = Image.fromarray(PHOTO)
    assert to_eight_bits(image) is image
