"""Images looked at once, when they are written."""
# SPDX-License-Identifier: Apache-2.0

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.data import sets
from tests.data.bad_records_test import bomb, jpeg_bomb
from vit_scaling import image_preprocessing
from vit_scaling.data.writing.image_checks import (
    UnusableImage,
    check_image,
    prepare_image,
    to_eight_bits,
)

PHOTO = sets.tile(0)


def palette_bmp():
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).quantize(64).save(buffer, "BMP")
    return buffer.getvalue()


def check(encoded, **options):
    return check_image(encoded, **{"max_pixels": 10**6, **options})


def prepare(encoded, **options):
    return prepare_image(encoded, **{"max_pixels": 10**6, **options})


def pixels_of(encoded):
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


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
        (sets.encoded(PHOTO, "TIFF"), "format TIFF cannot be read in training"),
        (palette_bmp(), "A BMP must have 24 bits"),
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
    image = prepare(buffer.getvalue(), reencode=kind, quality=98)
    assert (image.format, image.channels) == (kind.upper(), 3)
    with Image.open(io.BytesIO(image.encoded)) as result:
        apart = np.abs(np.asarray(result, float) - np.asarray(grey, float)[..., None])
    assert apart.mean() <= error


@pytest.mark.parametrize(
    ("kind", "number"), [("PNG", np.uint16), ("TIFF", np.uint16), ("TIFF", np.int32)]
)
def test_deep_grey_keeps_its_upper_byte(kind, number):
    image = prepare(sets.deep(PHOTO, kind, number), reencode="png")
    with Image.open(io.BytesIO(image.encoded)) as result:
        expected = np.repeat(PHOTO.mean(-1).astype(np.uint8)[..., None], 3, axis=2)
        np.testing.assert_array_equal(np.asarray(result), expected)


def monochrome_bmp():
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).convert("1").save(buffer, "BMP")
    return buffer.getvalue()


def animated_webp():
    buffer = io.BytesIO()
    frames = [Image.fromarray(sets.tile(number)) for number in range(2)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@pytest.mark.parametrize(
    "encoded",
    [
        palette_bmp(),
        monochrome_bmp(),
        sets.encoded(PHOTO, "BMP") + bytes(20),
        sets.encoded(PHOTO, "TIFF"),
        sets.encoded(PHOTO, "PPM"),
        animated_webp(),
    ],
)
def test_what_only_pillow_reads_is_converted_with_the_same_pixels(encoded):
    image = prepare(encoded)
    assert (image.format, image.height, image.width, image.channels) == (
        "PNG", *PHOTO.shape
    )  # fmt: skip
    assert image.converted
    np.testing.assert_array_equal(pixels_of(image.encoded), pixels_of(encoded))
    assert not check(image.encoded).converted  # Training reads it.


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_what_training_reads_keeps_its_bytes(kind):
    encoded = sets.encoded(PHOTO, kind)
    image = prepare(encoded)
    assert image.encoded == encoded and image.format == kind
    assert not image.converted


def test_a_phones_jpeg_with_a_second_image_is_a_jpeg():
    buffer = io.BytesIO()
    images = [Image.fromarray(sets.tile(number)) for number in range(2)]
    images[0].save(buffer, "MPO", save_all=True, append_images=images[1:])
    image = prepare(buffer.getvalue())
    assert image.encoded == buffer.getvalue()
    assert (image.format, image.converted) == ("JPEG", False)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_no_truncated_image_is_accepted(kind):
    encoded = sets.encoded(PHOTO, kind)
    for length in range(30, len(encoded) - 1, 97):
        with pytest.raises(UnusableImage):
            prepare(encoded[:length])


def test_every_flipped_bit_of_a_png_is_noticed():
    encoded = sets.encoded(PHOTO[:4, :4], "PNG")
    for position in range(8, len(encoded) - 12):
        damaged = bytearray(encoded)
        damaged[position] ^= 4
        with pytest.raises(UnusableImage):
            prepare(bytes(damaged))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("reencode", [None, "png"])
def test_an_exif_orientation_is_ignored(kind, reencode):
    exif = Image.Exif()
    exif[0x0112] = 6  # Turn by 90 degrees.
    photo = PHOTO[:12]
    turned = prepare(sets.encoded(photo, kind, exif=exif), reencode=reencode)
    plain = prepare(sets.encoded(photo, kind), reencode=reencode)
    assert (turned.height, turned.width) == (12, 24)
    np.testing.assert_array_equal(
        image_preprocessing.decode(tf.constant(turned.encoded)),
        image_preprocessing.decode(tf.constant(plain.encoded)),
    )


@pytest.mark.parametrize(
    ("pixels", "mode"),
    [(PHOTO[..., 0].astype(np.float32), "F"), (PHOTO[..., 0] * np.int32(2**17), "I")],
)
def test_pixels_that_eight_bits_cannot_represent_are_rejected(pixels, mode):
    encoded = sets.encoded(pixels, "TIFF")
    with pytest.raises(UnusableImage, match=rf"mode {mode}\) are not of 8 or 16 bits"):
        prepare(encoded)


def test_other_images_stay_as_they_are():
    image = Image.fromarray(PHOTO)
    assert to_eight_bits(image) is image
