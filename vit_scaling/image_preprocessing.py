"""Decode, resize, crop and scale images; the preprocessing of evaluation.

Training data, evaluation and exported models share these operations, so that an
exported model prepares an image exactly as the evaluation of its run did.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
import tensorflow as tf
from annotated_types import Ge

from vit_scaling.argument_types import (
    Interpolation,
    PixelValue,
    PositiveInt,
    check_fields,
)
from vit_scaling.image_headers import read_integer
from vit_scaling.naming import check_known

Size = int | tuple[int, int]  # One number for both sides, or (height, width).
# TensorFlow's names of Pillow's filters.
_METHODS = {"bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos3"}

_BMP_HEAD = 14 + 124 + 1024  # File header, largest image header, palette; in bytes.
_BMP_MASKS = b"\0\0\xff\0\0\xff\0\0\xff\0\0\0"  # Of red, green and blue.


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Return a JPEG, PNG, WebP, BMP or GIF (first frame) as uint8 (height, width, 3).

    Grey images are repeated over three channels, an alpha channel is dropped, 16-bit
    PNGs keep their upper byte. CMYK JPEGs are turned into RGB by the decoder. An EXIF
    orientation is ignored.

    Raises:
        tf.errors.InvalidArgumentError: The bytes are damaged or of another format, or
            are an animated WebP or a BMP whose pixels TensorFlow would misread.
    """
    start = tf.strings.substr(encoded, 0, 2)
    return tf.cond(
        start == b"RI",
        lambda: _decode_webp(encoded),
        lambda: tf.cond(
            start == b"BM",
            lambda: _decode_bmp(encoded),
            lambda: _decode_rgb(encoded),
        ),
    )


def decode_bytes(encoded: bytes) -> np.ndarray:
    """Return the pixels of `decode` outside a graph, chosen by format in Python.

    There each of its operations takes as long as decoding a small image.
    """
    by_start = {b"RI": _decode_webp, b"BM": _decode_bmp}
    decoder = by_start.get(encoded[:2], _decode_rgb)
    pixels: np.ndarray = decoder(tf.constant(encoded)).numpy()
    return pixels


def _decode_rgb(encoded: tf.Tensor) -> tf.Tensor:
    # The operation of tf.io.decode_image, which takes twice as long outside a graph.
    return tf.raw_ops.DecodeImage(
        contents=encoded, channels=3, dtype=tf.uint8, expand_animations=False
    )


def _decode_webp(encoded: tf.Tensor) -> tf.Tensor:
    """Decode with the file's channels: with 3, TensorFlow rejects an alpha channel.

    An animation would abort the process in TensorFlow 2.20.
    """
    head = tf.strings.substr(encoded, 0, 21) + b"\0" * 21
    flags = read_integer(head, 20, 1, big_endian=False)
    is_extended = tf.strings.substr(head, 12, 4) == b"VP8X"
    is_animation = is_extended & (flags // 2 % 2 == 1)
    message = "An animated WebP is not supported. Convert its first frame to PNG."
    with tf.control_dependencies([tf.debugging.Assert(~is_animation, [message])]):
        content = tf.identity(encoded)
    image = tf.io.decode_image(content, channels=0, expand_animations=False)
    return tf.ensure_shape(image[..., :3], (None, None, 3))


def _decode_bmp(encoded: tf.Tensor) -> tf.Tensor:
    """Decode a BMP; TensorFlow ignores its palette, compression and channel masks."""
    head = tf.strings.substr(encoded, 0, _BMP_HEAD) + b"\0" * _BMP_HEAD

    def integer(start: int, length: int) -> tf.Tensor:
        return read_integer(head, start, length, big_endian=False)

    header, bits, compression = integer(14, 4), integer(28, 2), integer(30, 4)
    is_standard = (header >= 40) & (header <= 124)
    uncompressed = compression == 0
    masks = tf.strings.substr(head, 54, 12) == _BMP_MASKS
    has_masks = ((compression == 3) | (compression == 6)) & masks
    palette_start = 14 + tf.cast(tf.clip_by_value(header, 40, 124), tf.int32)
    palette = tf.io.decode_raw(tf.strings.substr(head, palette_start, 1024), tf.uint8)
    grey = tf.range(256, dtype=tf.int32)[:, tf.newaxis]
    colors = tf.cast(tf.reshape(palette, (256, 4))[:, :3], tf.int32)
    is_grey = tf.reduce_all(colors == grey)
    is_readable = is_standard & (
        ((bits == 24) & uncompressed)
        | ((bits == 32) & (uncompressed | has_masks))
        | ((bits == 8) & uncompressed & is_grey)
    )
    message = tf.strings.join(
        [
            "A BMP must have 24 bits, 32 bits in the usual order, or 8 bits with a "
            "grey palette, all uncompressed; received ",
            tf.strings.as_string(bits),
            " bits, compression ",
            tf.strings.as_string(compression),
            ". Convert it to PNG.",
        ]
    )
    with tf.control_dependencies([tf.debugging.Assert(is_readable, [message])]):
        return _decode_rgb(tf.identity(encoded))


def resize(image: tf.Tensor, size: Size, *, antialias: bool = False) -> tf.Tensor:
    """Return an image resized bilinearly, uint8; the aspect is not kept.

    Args:
        image: (h, w, 3).
        size: Length of both sides, or (height, width).
        antialias: Whether to average over more than the next pixels when shrinking.
    """
    return _as_uint8(tf.image.resize(image, _sides(size), antialias=antialias))


def resize_like_pillow(
    image: tf.Tensor, size: Size | tf.Tensor, interpolation: Interpolation
) -> tf.Tensor:
    """Return an image resized with anti-aliasing as Pillow, timm and torchvision do.

    Pillow rounds after each of its two passes, first along rows, then along columns;
    a single pass would differ by up to 20 grey levels next to sharp edges.

    Args:
        image: (h, w, 3) uint8.
        size: Length of both sides, or (height, width).
        interpolation: The filter.
    """
    height, width = tf.unstack(tf.broadcast_to(tf.convert_to_tensor(size), [2]))
    for shape in ((tf.shape(image)[0], width), (height, width)):
        image = tf.image.resize(
            image, shape, method=_METHODS[interpolation], antialias=True
        )
        image = tf.floor(tf.clip_by_value(image, 0.0, 255.0) + 0.5)
    return tf.cast(image, tf.uint8)


def resize_small(image: tf.Tensor, size: int) -> tf.Tensor:
    """Return an image with smaller side `size` and the same aspect (area averaging)."""
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    target = tf.round(shape * (size / tf.reduce_min(shape)))
    target = tf.cast(target, tf.int32)
    return _as_uint8(tf.image.resize(image, target, method="area"))


def central_crop(image: tf.Tensor, size: Size, *, to_even: bool = False) -> tf.Tensor:
    """Return the middle of an image; of an odd margin the larger part is below right.

    Args:
        image: (h, w, 3), at least as large as `size`.
        size: Of the result.
        to_even: Whether half a pixel of the margin is rounded to the even number, as in
            torchvision (and timm), instead of down.
    """
    height, width = _sides(size)
    shape = tf.shape(image)
    margins = shape[0] - height, shape[1] - width
    top, left = ((m + tf.cast(m % 4 == 3, tf.int32) * to_even) // 2 for m in margins)
    cropped = image[top : top + height, left : left + width]
    return tf.ensure_shape(cropped, (height, width, 3))


def scale_pixels(
    images: tf.Tensor, low: PixelValue = -1.0, high: PixelValue = 1.0
) -> tf.Tensor:
    """Map uint8 values 0…255 to float32 `low`…`high`, which may differ by channel."""
    factor = np.asarray(np.subtract(high, low) / 255.0, np.float32)
    return np.asarray(low, np.float32) + tf.cast(images, tf.float32) * factor


def _as_uint8(image: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(image, 0.0, 255.0), tf.uint8)


def _sides(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


class EvaluationPreprocessing:
    """Base class of the ways to prepare an image for evaluation.

    Evaluation calls an instance with encoded images. A run records `to_record`, and
    `preprocessing_from_record` makes an equal instance for its exported model.

    Attributes:
        name: Name in the record of a run.
        resizes_smaller_side: Whether the aspect is kept and the smaller side resized: a
            long thin image then becomes very large.
    """

    name: ClassVar[str]
    resizes_smaller_side: ClassVar[bool] = False

    def resized_side(self, size: int) -> int | None:
        """Return the side in pixels before the crop of `size`; None without a crop."""
        del size
        return None

    def apply(self, image: tf.Tensor, size: Size) -> tf.Tensor:
        """Return a decoded uint8 image (h, w, 3) as uint8 (height, width, 3)."""
        raise NotImplementedError

    def __call__(
        self, encoded: tf.Tensor, size: Size, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Return uint8 (height, width, 3) of an encoded image; the seed is not used."""
        del seed
        return self.apply(decode(encoded), size)

    def to_record(self, size: int) -> dict[str, Any]:
        """Return the fields of a `RunRecord` that define the preprocessing."""
        return {
            "preprocess": self.name,
            "resize": self.resized_side(size),
            "interpolation": getattr(self, "interpolation", None),
            "crop_to_even": getattr(self, "crop_to_even", False),
        }


@dataclasses.dataclass(frozen=True)
class CentralCrop(EvaluationPreprocessing):
    """The middle of the image, after its smaller side is resized.

    Args:
        resize_to: Length of the smaller side before the crop, in pixels; None takes
            `ratio`.
        ratio: That length over the size; None takes the authors': 8/7, as 256 is to
            224, and from 384 pixels on 7/6, as 448 is to 384 (their fine-tuning).
        interpolation: Filter of `resize_like_pillow`; None averages areas, as the
            authors do.
        crop_to_even: See `central_crop`.
    """

    name = "central_crop"
    resizes_smaller_side = True
    resize_to: PositiveInt | None = None
    ratio: Annotated[float, Ge(1)] | None = None
    interpolation: Interpolation | None = None
    crop_to_even: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    def resized_side(self, size: int) -> int:
        """Return the length of the smaller side before the crop, in pixels."""
        ratio = self.ratio or (8 / 7 if size < 384 else 7 / 6)
        return self.resize_to or round(size * ratio)

    def apply(self, image: tf.Tensor, size: Size) -> tf.Tensor:
        """Return a decoded uint8 image (h, w, 3) as uint8 (height, width, 3)."""
        side = _side_before_crop(self, size)
        if self.interpolation is None:
            resized = resize_small(image, side)
        else:  # The longer side is rounded down, as in torchvision and transformers.
            shape = tf.shape(image)[:2]
            resized = resize_like_pillow(
                image, side * shape // tf.reduce_min(shape), self.interpolation
            )
        return central_crop(resized, size, to_even=self.crop_to_even)


@dataclasses.dataclass(frozen=True)
class Resize(EvaluationPreprocessing):
    """The whole image, resized without keeping its aspect (few-shot sets, digits).

    Args:
        interpolation: Filter of `resize_like_pillow`; None interpolates bilinearly
            without anti-aliasing, as the authors do.
    """

    name = "resize"
    interpolation: Interpolation | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def apply(self, image: tf.Tensor, size: Size) -> tf.Tensor:
        """Return a decoded uint8 image (h, w, 3) as uint8 (height, width, 3)."""
        resized = _squash(image, size, self.interpolation)
        return tf.ensure_shape(resized, (*_sides(size), 3))


@dataclasses.dataclass(frozen=True)
class SquashAndCrop(EvaluationPreprocessing):
    """The middle of the image resized to a square (the authors' few-shot evaluator).

    Args:
        resize_to: Side of the square, in pixels; None is 8/7 of the size, as 256 is to
            224.
        interpolation: See `Resize`.
        crop_to_even: See `central_crop`.
    """

    name = "squash_and_crop"
    resize_to: PositiveInt | None = None
    interpolation: Interpolation | None = None
    crop_to_even: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    def resized_side(self, size: int) -> int:
        """Return the side of the square before the crop, in pixels."""
        return self.resize_to or round(size * 8 / 7)

    def apply(self, image: tf.Tensor, size: Size) -> tf.Tensor:
        """Return a decoded uint8 image (h, w, 3) as uint8 (height, width, 3)."""
        side = _side_before_crop(self, size)
        resized = _squash(image, side, self.interpolation)
        return central_crop(resized, size, to_even=self.crop_to_even)


def _squash(
    image: tf.Tensor, size: Size, interpolation: Interpolation | None
) -> tf.Tensor:
    if interpolation is None:
        return resize(image, size)
    return resize_like_pillow(image, size, interpolation)


def _side_before_crop(preprocessing: CentralCrop | SquashAndCrop, size: Size) -> int:
    """Return `resized_side` for the longer side of the crop, checked against it."""
    longer = max(_sides(size))
    side = preprocessing.resized_side(longer)
    if side < longer:
        raise ValueError(
            "`resize_to` must be at least the image size; received "
            f"resize_to={side}, image_size={size}."
        )
    return side


EVALUATION_PREPROCESSING: dict[str, type[EvaluationPreprocessing]] = {
    kind.name: kind for kind in (CentralCrop, Resize, SquashAndCrop)
}


class PreprocessingRecord(Protocol):
    """The fields of a `RunRecord` that define its preprocessing."""

    @property
    def preprocess(self) -> str | None:
        """A key of `EVALUATION_PREPROCESSING`."""

    @property
    def resize(self) -> int | None:
        """Side in pixels before the crop; None is 8/7 of the crop's longer side."""

    @property
    def interpolation(self) -> Interpolation | None:
        """Filter of `resize_like_pillow`; None: the authors' resizing."""

    @property
    def crop_to_even(self) -> bool:
        """See `central_crop`."""


def preprocessing_from_record(record: PreprocessingRecord) -> EvaluationPreprocessing:
    """Return the preprocessing that a record defines.

    Raises:
        ValueError: The record names none, or an unknown one.
    """
    name, filters = str(record.preprocess), record.interpolation
    check_known("preprocess", name, EVALUATION_PREPROCESSING)
    if name == Resize.name:
        return Resize(filters)
    if name == SquashAndCrop.name:
        return SquashAndCrop(record.resize, filters, record.crop_to_even)
    return CentralCrop(record.resize, 8 / 7, filters, record.crop_to_even)
