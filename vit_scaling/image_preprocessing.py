"""Decode, resize, crop and scale images; the preprocessing of evaluation.

Training data, evaluation and exported models share these operations, so that an
exported model prepares an image exactly as the evaluation of its run did.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from typing import Annotated, Any, ClassVar

import tensorflow as tf
from annotated_types import Ge

from vit_scaling.argument_types import PositiveInt, check_fields

Size = int | tuple[int, int]  # One number for both sides, or (height, width).

# First bytes of the formats that `decode` reads: the longest prefix common to a format.
_FORMAT_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"RIFF")

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


def _decode_rgb(encoded: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def _decode_webp(encoded: tf.Tensor) -> tf.Tensor:
    """Decode with the file's channels: with 3, TensorFlow rejects an alpha channel.

    An animation would abort the process in TensorFlow 2.20.
    """
    head = tf.strings.substr(encoded, 0, 21) + b"\0" * 21
    flags = _integer(head, 20, 1, big_endian=False)
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
        return _integer(head, start, length, big_endian=False)

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


def is_known_format(encoded: tf.Tensor) -> tf.Tensor:
    """Whether bytes begin like a JPEG, PNG, GIF, BMP or WebP, without decoding them."""
    return tf.reduce_any(
        [tf.strings.substr(encoded, 0, len(s)) == s for s in _FORMAT_STARTS]
    )


def size_in_header(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `(height, width)` of an encoded image, int64, without decoding it.

    Only a few bytes are read, so images that are too large are found before memory is
    allocated. Formats other than PNG, JPEG, GIF, BMP and WebP give 0.
    """

    def integer(start: int, length: int, big_endian: bool) -> tf.Tensor:
        return _integer(head, start, length, big_endian=big_endian)

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
            (starts_with(b"RIFF"), lambda: _webp_size(head)),
        ],
        default=lambda: (zero, zero),
    )


def _webp_size(head: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `(height, width)` by the first chunk: extended, lossless or lossy."""

    def integer(start: int, length: int) -> tf.Tensor:
        return _integer(head, start, length, big_endian=False)

    def lossless() -> tuple[tf.Tensor, tf.Tensor]:
        sides = integer(21, 4)  # 14 bits each, width first.
        return sides // 2**14 % 2**14 + 1, sides % 2**14 + 1

    chunk = tf.strings.substr(head, 12, 4)
    return tf.case(
        [
            (chunk == b"VP8X", lambda: (integer(27, 3) + 1, integer(24, 3) + 1)),
            (chunk == b"VP8L", lossless),
        ],
        default=lambda: (integer(28, 2) % 2**14, integer(26, 2) % 2**14),
    )


def _integer(
    data: tf.Tensor, start: int, length: int, *, big_endian: bool
) -> tf.Tensor:
    """Return an unsigned integer in `data` as int64."""
    digits = tf.io.decode_raw(tf.strings.substr(data, start, length), tf.uint8)
    weights = [256**i for i in range(length)]
    return tf.reduce_sum(
        tf.cast(digits, tf.int64) * (weights[::-1] if big_endian else weights)
    )


def has_at_most_pixels(height: tf.Tensor, width: tf.Tensor, pixels: int) -> tf.Tensor:
    """Whether an image with these int64 sides has at most `pixels` pixels."""
    # Sides are bounded first, so that their product cannot overflow.
    return (
        (height <= pixels)
        & (width <= pixels)
        & (tf.minimum(height, pixels) * tf.minimum(width, pixels) <= pixels)
    )


def resize(image: tf.Tensor, size: Size, *, antialias: bool = False) -> tf.Tensor:
    """Return an image resized bilinearly, uint8; the aspect is not kept.

    Args:
        image: (h, w, 3).
        size: Length of both sides, or (height, width).
        antialias: Whether to average over more than the next pixels when shrinking.
    """
    return _as_uint8(tf.image.resize(image, _sides(size), antialias=antialias))


def resize_small(image: tf.Tensor, size: int) -> tf.Tensor:
    """Return an image with smaller side `size` and the same aspect (area averaging)."""
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    target = tf.round(shape * (size / tf.reduce_min(shape)))
    target = tf.cast(target, tf.int32)
    return _as_uint8(tf.image.resize(image, target, method="area"))


def central_crop(image: tf.Tensor, size: Size) -> tf.Tensor:
    """Return the middle of an image; of an odd margin the larger part is below right.

    Args:
        image: (h, w, 3), at least as large as `size`.
        size: Of the result.
    """
    height, width = _sides(size)
    shape = tf.shape(image)
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    cropped = image[top : top + height, left : left + width]
    return tf.ensure_shape(cropped, (height, width, 3))


def scale_pixels(images: tf.Tensor, low: float = -1.0, high: float = 1.0) -> tf.Tensor:
    """Map uint8 values 0…255 to float32 `low`…`high`."""
    return low + tf.cast(images, tf.float32) * ((high - low) / 255.0)


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
        """Return the fields `preprocess` and `resize` of a `RunRecord`."""
        return {"preprocess": self.name, "resize": self.resized_side(size)}


@dataclasses.dataclass(frozen=True)
class CentralCrop(EvaluationPreprocessing):
    """The middle of the image, after its smaller side is resized.

    Args:
        resize_to: Length of the smaller side before the crop, in pixels; None takes
            `ratio`.
        ratio: That length over the size; None takes the authors': 8/7, as 256 is to
            224, and from 384 pixels on 7/6, as 448 is to 384 (their fine-tuning).
    """

    name = "central_crop"
    resizes_smaller_side = True
    resize_to: PositiveInt | None = None
    ratio: Annotated[float, Ge(1)] | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def resized_side(self, size: int) -> int:
        """Return the length of the smaller side before the crop, in pixels."""
        ratio = self.ratio or (8 / 7 if size < 384 else 7 / 6)
        return self.resize_to or round(size * ratio)

    def apply(self, image: tf.Tensor, size: Size) -> tf.Tensor:
        """Return a decoded uint8 image (h, w, 3) as uint8 (height, width, 3)."""
        return central_crop(resize_small(image, _side_before_crop(self, size)), size)


@dataclasses.dataclass(frozen=True)
class Resize(EvaluationPreprocessing):
    """The whole image, resized without keeping its aspect (few-shot sets, digits)."""

    name = "resize"

    def apply(self, image: tf.Tensor, size: Size) -> tf.Tensor:
        """Return a decoded uint8 image (h, w, 3) as uint8 (height, width, 3)."""
        return tf.ensure_shape(resize(image, size), (*_sides(size), 3))


@dataclasses.dataclass(frozen=True)
class SquashAndCrop(EvaluationPreprocessing):
    """The middle of the image resized to a square (the authors' few-shot evaluator).

    Args:
        resize_to: Side of the square, in pixels; None is 8/7 of the size, as 256 is to
            224.
    """

    name = "squash_and_crop"
    resize_to: PositiveInt | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def resized_side(self, size: int) -> int:
        """Return the side of the square before the crop, in pixels."""
        return self.resize_to or round(size * 8 / 7)

    def apply(self, image: tf.Tensor, size: Size) -> tf.Tensor:
        """Return a decoded uint8 image (h, w, 3) as uint8 (height, width, 3)."""
        return central_crop(resize(image, _side_before_crop(self, size)), size)


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


def preprocessing_from_record(
    name: str, resize_to: int | None
) -> EvaluationPreprocessing:
    """Return the preprocessing of `RunRecord.preprocess` and `.resize`.

    Args:
        name: A key of `EVALUATION_PREPROCESSING`.
        resize_to: Side in pixels before the crop; None, in records of older versions,
            is 8/7 of the crop's longer side.
    """
    if name == Resize.name:
        return Resize()
    if name == SquashAndCrop.name:
        return SquashAndCrop(resize_to)
    return CentralCrop(resize_to, ratio=8 / 7)
