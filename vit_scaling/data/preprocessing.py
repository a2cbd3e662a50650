"""Decode, crop, resize and flip images, and scale their pixels."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from typing import Any

import tensorflow as tf

# Attempts to draw a box of the wanted area and aspect; then the entire image is used
# (TensorFlow's own default).
_ATTEMPTS = 100


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Return a JPEG, PNG, BMP or GIF (its first frame) as uint8 (height, width, 3).

    Grey images are repeated over three channels, an alpha channel is dropped, 16-bit
    PNGs keep their upper byte. CMYK JPEGs are turned into RGB by the decoder.
    """
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def size_in_header(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `(height, width)` of an encoded image, int64, without decoding it.

    Only a few bytes are read, so images that are too large are found before memory is
    allocated. Formats other than PNG, JPEG, GIF and BMP give 0.
    """

    def integer(start: int, length: int, big_endian: bool) -> tf.Tensor:
        part = tf.strings.substr(head, start, length)
        digits = tf.cast(tf.io.decode_raw(part, tf.uint8), tf.int64)
        weights = [256**i for i in range(length)]
        return tf.reduce_sum(digits * (weights[::-1] if big_endian else weights))

    def absolute(start: int) -> tf.Tensor:
        value = integer(start, 4, False)
        return tf.minimum(value, 2**32 - value)

    def starts_with(text: bytes) -> tf.Tensor:
        return tf.strings.substr(head, 0, len(text)) == text

    def jpeg() -> tuple[tf.Tensor, tf.Tensor]:
        shape = tf.image.extract_jpeg_shape(encoded, output_type=tf.int64)
        return shape[0], shape[1]

    # Only the start is copied; appended zeros make every field readable.
    head = tf.strings.substr(encoded, 0, 32) + b"\0" * 32
    zero = tf.constant(0, tf.int64)
    return tf.case(
        [
            (starts_with(b"\xff\xd8\xff"), jpeg),
            (
                starts_with(b"\x89PNG"),
                lambda: (integer(20, 4, True), integer(16, 4, True)),
            ),
            (
                starts_with(b"GIF8"),
                lambda: (integer(8, 2, False), integer(6, 2, False)),
            ),
            # A BMP's height is negative if its rows go downwards.
            (starts_with(b"BM"), lambda: (absolute(22), integer(18, 4, False))),
        ],
        default=lambda: (zero, zero),
    )


def has_at_most_pixels(height: tf.Tensor, width: tf.Tensor, pixels: int) -> tf.Tensor:
    """Whether an image with these int64 sides has at most `pixels` pixels."""
    # Sides are bounded first, so that their product cannot overflow.
    return (
        (height <= pixels)
        & (width <= pixels)
        & (tf.minimum(height, pixels) * tf.minimum(width, pixels) <= pixels)
    )


def resize(
    image: tf.Tensor, size: int | tuple[int, int], *, antialias: bool = False
) -> tf.Tensor:
    """Return an image resized bilinearly, uint8; the aspect is not kept.

    Args:
        image: (h, w, 3).
        size: Length of both sides, or (height, width).
        antialias: Whether to average over more than the next pixels when shrinking.
    """
    sides = (size, size) if isinstance(size, int) else size
    return _as_uint8(tf.image.resize(image, sides, antialias=antialias))


def resize_small(image: tf.Tensor, size: int) -> tf.Tensor:
    """Return an image with smaller side `size` and the same aspect (area averaging)."""
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    target = tf.round(shape * (size / tf.reduce_min(shape)))
    target = tf.cast(target, tf.int32)
    return _as_uint8(tf.image.resize(image, target, method="area"))


def central_crop(image: tf.Tensor, size: int) -> tf.Tensor:
    """Return the middle (size, size, 3) of an image, rounded towards the upper left."""
    shape = tf.shape(image)
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return tf.ensure_shape(image[top : top + size, left : left + size], [size, size, 3])


def flip_left_right(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return the image mirrored with probability one half."""
    mirror = tf.random.stateless_uniform([], seed, alg="philox") < 0.5
    return tf.cond(mirror, lambda: image[:, ::-1], lambda: image)


def scale_pixels(images: tf.Tensor, low: float = -1.0, high: float = 1.0) -> tf.Tensor:
    """Return uint8 values 0…255 as float32 `low`…`high`."""
    return low + tf.cast(images, tf.float32) * ((high - low) / 255.0)


def scale_batch_pixels(images: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Return the values of `scale_pixels`, bit for bit, in one pass over the memory.

    For batches, whose three passes take a tenth of the time of decoding. Converters of
    exported models may not support its operation.
    """
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


def _as_uint8(image: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(image, 0.0, 255.0), tf.uint8)


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

    area: tuple[float, float] = (0.05, 1.0)
    aspect: tuple[float, float] = (0.75, 4 / 3)
    flip: bool = True
    antialias: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(
                "`area` must be two increasing fractions, above 0 and at most 1; "
                f"received {self.area}."
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

    padding: int = 4
    flip: bool = True

    def __call__(self, encoded: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
        """Return uint8 (size, size, 3), a pure function of the bytes and the seed."""
        seeds = tf.random.split(seed, 2)
        edge = [self.padding, self.padding]
        image = tf.pad(resize(decode(encoded), size), [edge, edge, [0, 0]])
        image = tf.image.stateless_random_crop(image, [size, size, 3], seeds[0])
        return flip_left_right(image, seeds[1]) if self.flip else image


@dataclasses.dataclass(frozen=True)
class CentralCrop:
    """The middle of the image, its smaller side resized first: for evaluation.

    Args:
        resize_to: Length of the smaller side before the crop, in pixels; None takes
            `ratio`.
        ratio: That length over the size; None takes the authors': 8/7, as 256 is to
            224, and from 384 pixels on 7/6, as 448 is to 384 (their fine-tuning).
    """

    resize_to: int | None = None
    ratio: float | None = None

    def smaller_side(self, size: int) -> int:
        """Return the length of the smaller side before the crop."""
        ratio = self.ratio or (8 / 7 if size < 384 else 7 / 6)
        return self.resize_to or round(size * ratio)

    def as_recorded(self, size: int) -> dict[str, Any]:
        """Return what a run records, for exports to prepare images alike."""
        return {"preprocess": "central_crop", "resize": self.smaller_side(size)}

    def __call__(self, encoded: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
        """Return uint8 (size, size, 3); the seed is not used."""
        del seed
        smaller = self.smaller_side(size)
        if smaller < size:
            raise ValueError(
                "`resize_to` must be at least the image size; "
                f"received resize_to={smaller}, image_size={size}."
            )
        return central_crop(resize_small(decode(encoded), smaller), size)


@dataclasses.dataclass(frozen=True)
class Resize:
    """The whole image, resized without keeping its aspect (few-shot sets, digits)."""

    def as_recorded(self, size: int) -> dict[str, Any]:
        """Return what a run records, for exports to prepare images alike."""
        del size
        return {"preprocess": "resize", "resize": None}

    def __call__(self, encoded: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
        """Return uint8 (size, size, 3); the seed is not used."""
        del seed
        return tf.ensure_shape(resize(decode(encoded), size), [size, size, 3])
