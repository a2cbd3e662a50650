"""Image operations against float64 NumPy; the crops of evaluation and their records."""
# SPDX-License-Identifier: Apache-2.0

import io

import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from PIL import Image

from tests.data import sets
from tests.oracles import images as oracle
from vit_scaling import image_preprocessing as ops
from vit_scaling.image_headers import size_in_header
from vit_scaling.image_preprocessing import (
    EVALUATION_PREPROCESSING,
    CentralCrop,
    Resize,
    SquashAndCrop,
    preprocessing_from_record,
)
from vit_scaling.run_record import PREPROCESSING_NAMES, RunRecord

SEED = tf.constant([3, 4], tf.int64)


def test_resize_is_bilinear_without_antialiasing():
    photo = sets.photograph()[:50, :70]
    got = ops.resize(tf.constant(photo), 33).numpy()
    # Values are cut to integers, as the cast of the authors' code does.
    assert np.abs(got - (oracle.bilinear(photo, 33, 33) - 0.5)).max() < 0.51


def test_resize_small_averages_areas_and_keeps_the_aspect():
    photo = sets.photograph()[:50, :71]
    got = ops.resize_small(tf.constant(photo), 32).numpy()
    height, width = oracle.rounded_small(50, 71, 32)
    assert got.shape == (height, width, 3)
    expected = oracle.area(photo, height, width)
    assert np.abs(got - (expected - 0.5)).max() < 0.52


def test_central_crop_takes_the_middle():
    photo = sets.photograph()[:51, :70]
    got = ops.central_crop(tf.constant(photo), 32)
    np.testing.assert_array_equal(got, photo[9:41, 19:51])


def test_evaluation_crop_is_resize_small_then_the_middle():
    photo = sets.photograph()[:80, :120]
    data = tf.constant(sets.encoded(photo, "PNG"))
    got = CentralCrop(40)(data, 32, SEED)
    small = ops.resize_small(tf.constant(photo), 40)
    np.testing.assert_array_equal(got, ops.central_crop(small, 32))
    assert CentralCrop()(data, 28, SEED).shape == (28, 28, 3)
    assert CentralCrop().resized_side(224) == 256  # The authors' evaluation.
    assert CentralCrop().resized_side(384) == 448  # The same after fine-tuning.
    assert CentralCrop(ratio=2.0).resized_side(384) == 768
    with pytest.raises(ValueError, match="`resize_to` must be at least the image size"):
        CentralCrop(16)(data, 32, SEED)


def test_a_bmp_with_rows_downwards_has_its_height_and_is_decoded():
    photo = sets.photograph()[:20, :24]
    data = bytearray(sets.encoded(photo[::-1], "BMP"))
    data[22:26] = (-20).to_bytes(4, "little", signed=True)
    height, width = size_in_header(tf.constant(bytes(data)))
    assert (int(height), int(width)) == (20, 24)
    np.testing.assert_array_equal(ops.decode(tf.constant(bytes(data))), photo)


def bmp(mode, **changes):
    """A BMP of a photograph, with some bytes of its header changed."""
    image = Image.fromarray(sets.photograph()[:20, :24])
    file = io.BytesIO()
    (image.quantize(64) if mode == "P" else image.convert(mode)).save(file, "BMP")
    data = bytearray(file.getvalue())
    for position, value in changes.items():
        data[int(position[2:])] = value
    return bytes(data)


def pixels_by_pillow(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_webp_has_the_pixels_that_pillow_reads(mode, lossless):
    pixels = np.asarray(Image.fromarray(sets.photograph()[:31, :47]).convert(mode))
    data = sets.encoded(pixels, "WEBP", lossless=lossless)
    np.testing.assert_array_equal(ops.decode(tf.constant(data)), pixels_by_pillow(data))


def test_an_animated_webp_raises_and_does_not_abort():
    frames = [Image.fromarray(sets.tile(number)) for number in range(2)]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(tf.errors.InvalidArgumentError, match="An animated WebP"):
        ops.decode(tf.constant(file.getvalue()))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_bmps_that_are_accepted_have_the_pixels_that_pillow_reads(mode):
    data = bmp(mode)
    decode = tf.function(ops.decode, autograph=False)  # As in a dataset.
    for image in (ops.decode(tf.constant(data)), decode(tf.constant(data))):
        np.testing.assert_array_equal(image, pixels_by_pillow(data))


@pytest.mark.parametrize(
    "data",
    [
        bmp("P"),
        bmp("1"),
        bmp("L", at54=9),  # A palette with another black.
        bmp("RGB", at30=3),  # With masks.
        bmp("RGB", at14=12),  # OS/2's header.
        bmp("RGBA", at30=3),  # The first pixels are the masks.
        bmp("L", at30=1),  # Run-length encoded.
        b"BM",
    ],
)
def test_bmps_that_tensorflow_would_misread_raise(data):
    with pytest.raises(tf.errors.InvalidArgumentError, match="A BMP must have 24 bits"):
        ops.decode(tf.constant(data))


def test_few_shot_images_are_squashed_and_cropped():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    encoded = tf.io.encode_png(pixels)
    made = SquashAndCrop()(encoded, 28, tf.constant([0, 0]))
    resized = tf.image.resize(pixels, (32, 32)).numpy()
    np.testing.assert_array_equal(made, resized[2:30, 2:30].astype(np.uint8))
    with pytest.raises(ValueError, match="`resize_to` must be at least"):
        SquashAndCrop(resize_to=20)(encoded, 28, tf.constant([0, 0]))


PHOTOS = ("astronaut", "coffee", "chelsea")  # 512x512, 400x600 and 300x451.
FILTERS = {"bilinear": 2, "bicubic": 3, "lanczos": 1}  # Pillow's numbers.


def by_pillow(photo, size, interpolation):
    """Return a photograph resized by Pillow to (height, width)."""
    image = Image.fromarray(photo).resize(size[::-1], FILTERS[interpolation])
    return np.asarray(image, np.int64)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("name", PHOTOS)
def test_resizing_like_pillow_is_within_one_grey_level(name, interpolation):
    photo = getattr(skimage.data, name)()
    for size in ((224, 224), (248, 333), (518, 518)):
        got = ops.resize_like_pillow(tf.constant(photo), size, interpolation)
        difference = np.abs(got.numpy() - by_pillow(photo, size, interpolation))
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01


@pytest.mark.parametrize("to_even", [True, False])
@pytest.mark.parametrize("name", PHOTOS)
def test_a_central_crop_is_that_of_torchvision_or_transformers(name, to_even):
    photo = getattr(skimage.data, name)()
    side, size = 235, 224  # Margins of 11, 128 and 129.
    height, width = photo.shape[:2]
    shape = [int(side * n / min(height, width)) for n in (height, width)]
    resized = by_pillow(photo, shape, "bicubic")
    middle = round if to_even else int  # Python rounds half a pixel to even.
    top, left = (middle((n - size) / 2) for n in shape)
    preprocess = CentralCrop(side, interpolation="bicubic", crop_to_even=to_even)
    got = preprocess(tf.constant(sets.encoded(photo, "PNG")), size).numpy()
    expected = resized[top : top + size, left : left + size]
    assert np.abs(got - expected).max() <= 1


def test_pixels_are_scaled_by_channel_as_mean_and_deviation_say():
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    low, high = tuple(-mean / deviation), tuple((1 - mean) / deviation)
    photo = sets.photograph()[:9, :9]
    got = ops.scale_pixels(tf.constant(photo), low, high)
    np.testing.assert_allclose(got, (photo / 255 - mean) / deviation, atol=1e-6)


def test_run_records_accept_exactly_the_names_of_the_classes():
    assert tuple(EVALUATION_PREPROCESSING) == PREPROCESSING_NAMES


@pytest.mark.parametrize(
    "preprocessing",
    [
        CentralCrop(),
        CentralCrop(50),
        CentralCrop(53, interpolation="bicubic", crop_to_even=True),
        Resize(),
        Resize("lanczos"),
        SquashAndCrop(),
        SquashAndCrop(64),
        SquashAndCrop(51, "bilinear", crop_to_even=True),
    ],
)
def test_a_record_gives_a_preprocessing_with_the_same_pixels(preprocessing):
    encoded = tf.constant(sets.encoded(sets.photograph()[:80, :120], "PNG"))
    fields = preprocessing.to_record(48)
    again = preprocessing_from_record(RunRecord((), (48, 48), **fields))
    np.testing.assert_array_equal(again(encoded, 48), preprocessing(encoded, 48, SEED))


def test_records_without_a_size_before_the_crop_mean_8_to_7():
    record = RunRecord((), (384, 384))
    assert preprocessing_from_record(record).resized_side(224) == 256
    assert preprocessing_from_record(record).resized_side(384) == 439
    record = RunRecord((), (384, 384), resize=448)
    assert preprocessing_from_record(record).resized_side(384) == 448
