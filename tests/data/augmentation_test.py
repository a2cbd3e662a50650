"""RandAugment against Pillow."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from tests.data import sets
from vit_scaling.data import augmentation
from vit_scaling.data.augmentation import OPERATIONS, RandAugment

PHOTO = sets.photograph(0)[100:164, 200:280]
SEEDS = tf.random.split(tf.constant([1, 2], tf.int64), 400)


PILLOW = {
    "identity": lambda image: image,
    "autocontrast": ImageOps.autocontrast,
    "equalize": ImageOps.equalize,
    "posterize": lambda image: ImageOps.posterize(image, 6),
    "solarize": lambda image: ImageOps.solarize(image, 128),
    "color": lambda image: ImageEnhance.Color(image).enhance(1.45),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.45),
    "brightness": lambda image: ImageEnhance.Brightness(image).enhance(1.45),
    "sharpness": lambda image: ImageEnhance.Sharpness(image).enhance(1.45),
    "shear_x": lambda image: _affine(image, (1, 0.15, 0, 0, 1, 0)),
    "shear_y": lambda image: _affine(image, (1, 0, 0, 0.15, 1, 0)),
    "translate_x": lambda image: _affine(image, (1, 0, 12, 0, 1, 0)),
    "translate_y": lambda image: _affine(image, (1, 0, 0, 0, 1, 9.6)),
    "rotate": lambda image: image.rotate(15, fillcolor=(128,) * 3),
}


def _affine(image, numbers):
    return image.transform(
        image.size, Image.Transform.AFFINE, numbers, fillcolor=(128,) * 3
    )


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_each_operation_does_what_pillow_does(name):
    expected = np.asarray(PILLOW[name](Image.fromarray(PHOTO))).astype(int)
    got = OPERATIONS[name](tf.constant(PHOTO), 0.5, tf.constant(1.0), 128).numpy()
    assert got.dtype == np.uint8
    difference = np.abs(got - expected).max(-1)
    if name in ("rotate", "shear_x", "shear_y", "translate_y"):
        # Nearest pixels: Pillow samples at centres, TensorFlow at corners.
        assert np.mean(difference > 1) < 0.6
        assert np.median(difference) < 12
    else:
        assert np.percentile(difference, 99.5) <= 2  # Rounding.


def test_randaugment_is_a_function_of_image_and_seed_and_keeps_the_shape():
    image = tf.constant(PHOTO)
    augment = tf.function(RandAugment())
    first = [augment(image, seed).numpy() for seed in SEEDS[:30]]
    again = [augment(image, seed).numpy() for seed in SEEDS[:30]]
    np.testing.assert_array_equal(first, again)
    assert len({value.tobytes() for value in first}) > 20
    np.testing.assert_array_equal(RandAugment()(image, SEEDS[3]), first[3])


def test_bad_settings_raise():
    with pytest.raises(
        ValueError, match="`magnitude` must be a number of at least 0 and at most 10"
    ):
        RandAugment(magnitude=11)
    assert len(augmentation.OPERATIONS) == 14
