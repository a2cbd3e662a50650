"""Random crops and flips of training images; batches of pixels and labels."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import tensorflow as tf

from vit_scaling.argument_types import (
    Fraction,
    NonNegativeInt,
    PixelValue,
    PositiveFloat,
    check_fields,
)
from vit_scaling.image_preprocessing import decode, resize, scale_pixels

# Attempts to draw a box of the wanted area and aspect; then the entire image is used
# (TensorFlow's own default).
_ATTEMPTS = 100


def flip_left_right(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return the image mirrored with probability one half."""
    mirror = tf.random.stateless_uniform([], seed, alg="philox") < 0.5
    return tf.cond(mirror, lambda: tf.reverse(image, [1]), lambda: image)


def scale_batch_pixels(
    images: tf.Tensor, low: PixelValue, high: PixelValue
) -> tf.Tensor:
    """Return the values of `scale_pixels`, bit for bit, in one pass over the memory.

    For batches, whose three passes take a tenth of the time of decoding. Converters of
    exported models may not support its operation, which has one range for all channels.
    """
    if not isinstance(low, int | float):
        return scale_pixels(images, low, high)
    return tf.raw_ops.Dequantize(
        input=tf.bitcast(images, tf.quint8), min_range=low, max_range=high
    )


def multi_hot(labels: tf.RaggedTensor, classes: int) -> tf.Tensor:
    """Return 0/1 float32 (batch, classes) of ragged class indices (batch, labels)."""
    rows = tf.cast(labels.value_rowids(), tf.int64)
    where = tf.stack([rows, tf.cast(labels.flat_values, tf.int64)], axis=1)
    ones = tf.ones(tf.shape(where)[0])
    shape = tf.stack([tf.cast(labels.nrows(), tf.int64), classes])
    return tf.minimum(tf.scatter_nd(where, ones, shape), 1.0)  # (batch, classes)


@dataclasses.dataclass(frozen=True)
class InceptionCrop:
    """Crop a random part of the image, resize and flip it (App. B: nothing else).

    Args:
        area: Smallest and largest fraction of the image's area.
        aspect: Smallest and largest width / height of the part.
        flip: Mirror left and right with probability one half.
        antialias: Average when shrinking; the authors' code does not.

    References: Szegedy et al. 2015; Zhai et al. 2022, App. B.
    """

    area: tuple[Fraction, Fraction] = (0.05, 1.0)
    aspect: tuple[PositiveFloat, PositiveFloat] = (0.75, 4 / 3)
    flip: bool = True
    antialias: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("area", "aspect"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(
                    f"`{name}` must be increasing; received {(low, high)}."
                )

    def __call__(self, encoded: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
        """Return uint8 (size, size, 3), a pure function of the bytes and the seed."""
        seeds = tf.random.split(seed, 2)
        jpeg = tf.io.is_jpeg(encoded)
        part = tf.cond(
            jpeg,
            lambda: self._from_jpeg(encoded, seeds[0]),
            lambda: self._from_other(encoded, seeds[0]),
        )
        image = resize(part, size, antialias=self.antialias)
        image = tf.ensure_shape(image, [size, size, 3])
        return flip_left_right(image, seeds[1]) if self.flip else image

    def _box(self, shape: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            bounding_boxes=tf.zeros([0, 0, 4]),
            seed=seed,
            min_object_covered=0.0,
            aspect_ratio_range=self.aspect,
            area_range=self.area,
            max_attempts=_ATTEMPTS,
            use_image_if_no_bounding_boxes=True,
        )
        return begin, size

    def _from_jpeg(self, encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        begin, size = self._box(tf.image.extract_jpeg_shape(encoded), seed)
        window = tf.stack([begin[0], begin[1], size[0], size[1]])
        return tf.image.decode_and_crop_jpeg(encoded, window, channels=3)

    def _from_other(self, encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        image = decode(encoded)
        begin, size = self._box(tf.shape(image), seed)
        return tf.slice(image, begin, size)


@dataclasses.dataclass(frozen=True)
class PaddedCrop:
    """Move the resized image by up to `padding` pixels over black, and flip it.

    For sets of images that are too small for random crops.

    Args:
        padding: Pixels added on each side before a crop of the image's size is taken.
        flip: Mirror left and right with probability one half.
    """

    padding: NonNegativeInt = 4
    flip: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, encoded: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
        """Return uint8 (size, size, 3), a pure function of the bytes and the seed."""
        seeds = tf.random.split(seed, 2)
        edge = [self.padding, self.padding]
        image = tf.pad(resize(decode(encoded), size), [edge, edge, [0, 0]])
        image = tf.image.stateless_random_crop(image, [size, size, 3], seeds[0])
        return flip_left_right(image, seeds[1]) if self.flip else image
