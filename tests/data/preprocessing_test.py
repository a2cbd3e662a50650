"""Random crops stay within their bounds; batches of pixels and labels."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import tensorflow as tf

from tests.data import sets
from vit_scaling.data import preprocessing as ops
from vit_scaling.data.preprocessing import InceptionCrop, PaddedCrop
from vit_scaling.image_preprocessing import resize, scale_pixels

SEEDS = tf.random.split(tf.constant([3, 4], tf.int64), 200)


def coordinates(height=60, width=90):
    """A picture that says where each of its pixels came from."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], -1).astype(np.uint8)


def test_pixel_scaling_and_multi_hot():
    values = scale_pixels(tf.constant([0, 51, 255], tf.uint8))
    np.testing.assert_allclose(values, [-1, -0.6, 1], atol=1e-6)
    labels = tf.ragged.constant([[3, 0, 3], [], [1]], dtype=tf.int64)
    expected = [[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]
    np.testing.assert_array_equal(ops.multi_hot(labels, 4), expected)


@pytest.mark.parametrize("ends", [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)])
def test_batches_are_scaled_like_single_images_bit_for_bit(ends):
    every = tf.cast(tf.range(256), tf.uint8)
    fast = ops.scale_batch_pixels(every, *ends)
    np.testing.assert_array_equal(fast, scale_pixels(every, *ends))


def test_many_classes_need_no_dense_row_before_the_batch():
    labels = tf.ragged.constant([[29_592], [5, 7]], dtype=tf.int64)
    got = ops.multi_hot(labels, 29_593).numpy()
    assert got.shape == (2, 29_593)
    assert [set(np.flatnonzero(row)) for row in got] == [{29_592}, {5, 7}]


def test_inception_crop_stays_in_its_bounds_and_depends_on_the_seed_alone():
    png = sets.encoded(coordinates(), "PNG")
    crop = tf.function(
        lambda seed: InceptionCrop((0.2, 0.6))(tf.constant(png), 64, seed)
    )
    boxes, flips = [], 0
    for seed in SEEDS:
        image = crop(seed).numpy().astype(float)
        # One pixel of the result is so many of the picture's.
        height = (image[60, 32, 0] - image[4, 32, 0]) * 64 / 56
        step = image[32, 60, 1] - image[32, 4, 1]
        flips += step < 0
        width = abs(step) * 64 / 56
        boxes.append((height, width))
        assert 0.17 < height * width / (60 * 90) < 0.65
        assert 0.65 < width / height < 1.5
    assert 70 < flips < 130  # 100 ± 4.2 standard deviations of 7.1.
    assert len(set(boxes)) > 100
    np.testing.assert_array_equal(crop(SEEDS[7]), crop(SEEDS[7]))


def test_the_fused_jpeg_crop_is_the_crop_of_the_decoded_image():
    photo = sets.photograph()
    data = tf.constant(sets.jpeg(photo, 95))
    complete = tf.io.decode_jpeg(data, channels=3)
    crop = InceptionCrop(flip=False)
    for seed in SEEDS[:5]:
        got = crop(data, 48, seed)
        part_seed = tf.random.split(seed, 2)[0]
        begin, size = crop._box(tf.shape(complete), part_seed)
        expected = resize(tf.slice(complete, begin, size), 48)
        np.testing.assert_array_equal(got, expected)


def test_padded_crop_moves_over_black():
    picture = np.full((16, 16, 3), 255, np.uint8)
    data = tf.constant(sets.encoded(picture, "PNG"))
    shifts = set()
    for seed in SEEDS[:60]:
        image = PaddedCrop(3, flip=False)(data, 16, seed).numpy()[..., 0]
        rows, columns = np.nonzero(image)
        assert len(set(rows)) >= 13 and len(set(columns)) >= 13
        shifts.add((rows.min(), rows.max(), columns.min(), columns.max()))
    assert len(shifts) > 20


def test_bad_areas_raise():
    with pytest.raises(ValueError, match="`area` must be increasing"):
        InceptionCrop((0.5, 0.1))
