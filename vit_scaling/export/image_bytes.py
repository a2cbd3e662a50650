"""JPEG and PNG bytes to a model's input, inside the graph, as evaluation does it."""
# SPDX-License-Identifier: Apache-2.0

import tensorflow as tf

JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"


def images_from_bytes(
    image_bytes: tf.Tensor,
    *,
    image_size: tuple[int, int],
    smaller_side: int,
    value_range: tuple[float, float],
) -> tf.Tensor:
    """Decode, resize the smaller side, crop the centre and scale a batch of files.

    Args:
        image_bytes: (batch,) strings, each the content of one JPEG or PNG file.
        image_size: (height, width) of the crop in pixels.
        smaller_side: Pixels of the image's smaller side before the crop.
        value_range: (lowest, highest) value of a pixel of the result.

    Returns:
        (batch, height, width, 3) float32.

    Raises:
        tf.errors.InvalidArgumentError: An image is neither JPEG nor PNG, or is damaged;
            the message gives its position in the request.
    """

    def one_image(number_and_content: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        number, content = number_and_content
        with tf.control_dependencies([_assert_image(number, content)]):
            image = decode(content)  # (h, w, 3)
        image = resize_smaller_side(image, smaller_side)
        return central_crop(image, image_size)  # (height, width, 3)

    height, width = image_size
    pixels = tf.map_fn(
        one_image,
        (tf.range(tf.size(image_bytes)), image_bytes),
        fn_output_signature=tf.TensorSpec((height, width, 3), tf.uint8),
    )  # (batch, height, width, 3)
    low, high = value_range
    return low + tf.cast(pixels, tf.float32) / 255.0 * (high - low)


def decode(content: tf.Tensor) -> tf.Tensor:
    """Return the pixels of one file as (h, w, 3) uint8; grey becomes three channels."""
    image = tf.io.decode_image(content, channels=3, expand_animations=False)
    image.set_shape((None, None, 3))
    return image


def resize_smaller_side(image: tf.Tensor, length: int) -> tf.Tensor:
    """Return (h, w, 3) uint8 with its smaller side `length` long, aspect kept."""
    size = tf.shape(image)[:2]
    scale = length / tf.reduce_min(size)
    new_size = tf.cast(tf.round(tf.cast(size, tf.float64) * scale), tf.int32)
    new_size = tf.maximum(new_size, length)  # No side falls short by rounding.
    resized = tf.image.resize(image, new_size, method="area")
    return tf.cast(tf.clip_by_value(resized, 0.0, 255.0), tf.uint8)


def central_crop(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Return the (height, width) pixels in the middle of an image at least as large."""
    offset = (tf.shape(image)[:2] - tf.constant(size)) // 2
    cropped = tf.image.crop_to_bounding_box(image, offset[0], offset[1], *size)
    cropped.set_shape((*size, 3))
    return cropped


def _assert_image(number: tf.Tensor, content: tf.Tensor) -> tf.Operation:
    """Return an operation that fails unless `content` begins like a JPEG or PNG."""
    is_jpeg = tf.equal(tf.strings.substr(content, 0, len(JPEG_START)), JPEG_START)
    is_png = tf.equal(tf.strings.substr(content, 0, len(PNG_START)), PNG_START)
    message = tf.strings.join(
        [
            "`image_bytes` must hold whole JPEG or PNG files; image ",
            tf.strings.as_string(number),
            " of the request (",
            tf.strings.as_string(tf.strings.length(content)),
            " bytes) is neither. Send the file's bytes, in REST as base64 under b64.",
        ]
    )
    return tf.debugging.Assert(is_jpeg | is_png, [message])
