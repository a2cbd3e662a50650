"""Format and size of an encoded image, read from its header without decoding it."""
# SPDX-License-Identifier: Apache-2.0

import tensorflow as tf

# First bytes of the formats that are decoded: the longest prefix common to a format.
_FORMAT_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"RIFF")


def is_known_format(encoded: tf.Tensor) -> tf.Tensor:
    """Whether bytes begin like a JPEG, PNG, GIF, BMP or WebP, without decoding them."""
    return tf.reduce_any(
        [tf.strings.substr(encoded, 0, len(s)) == s for s in _FORMAT_STARTS]
    )


def read_integer(
    data: tf.Tensor, start: int, length: int, *, big_endian: bool
) -> tf.Tensor:
    """Return an unsigned integer in `data` as int64."""
    digits = tf.io.decode_raw(tf.strings.substr(data, start, length), tf.uint8)
    weights = [256**i for i in range(length)]
    return tf.reduce_sum(
        tf.cast(digits, tf.int64) * (weights[::-1] if big_endian else weights)
    )


def size_in_header(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `(height, width)` of an encoded image, int64, without decoding it.

    Only a few bytes are read, so images that are too large are found before memory is
    allocated. Formats other than PNG, JPEG, GIF, BMP and WebP give 0.
    """

    def jpeg() -> tuple[tf.Tensor, tf.Tensor]:
        shape = tf.image.extract_jpeg_shape(encoded, output_type=tf.int64)
        return shape[0], shape[1]

    return tf.cond(tf.io.is_jpeg(encoded), jpeg, lambda: _size_of_other(encoded))


def _size_of_other(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    def integer(start: int, length: int, big_endian: bool) -> tf.Tensor:
        return read_integer(head, start, length, big_endian=big_endian)

    def absolute(start: int) -> tf.Tensor:
        value = integer(start, 4, False)
        return tf.minimum(value, 2**32 - value)

    def starts_with(text: bytes) -> tf.Tensor:
        return tf.strings.substr(head, 0, len(text)) == text

    # Only the start is copied; appended zeros make every field readable.
    head = tf.strings.substr(encoded, 0, 32) + b"\0" * 32
    zero = tf.constant(0, tf.int64)
    return tf.case(
        [
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
        return read_integer(head, start, length, big_endian=False)

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


def has_at_most_pixels(height: tf.Tensor, width: tf.Tensor, pixels: int) -> tf.Tensor:
    """Whether an image with these int64 sides has at most `pixels` pixels."""
    # Sides are bounded first, so that their product cannot overflow.
    return (
        (height <= pixels)
        & (width <= pixels)
        & (tf.minimum(height, pixels) * tf.minimum(width, pixels) <= pixels)
    )
