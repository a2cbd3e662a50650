"""JPEG and PNG bytes to a model's input, inside the graph, as evaluation does it."""
# SPDX-License-Identifier: Apache-2.0

import tensorflow as tf

from vit_scaling.data import preprocessing
from vit_scaling.data.decoding import MAX_PIXELS
from vit_scaling.run_record import RunRecord

JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
# A central crop resizes the smaller side: of a line of pixels it would make gigabytes.
MAX_RATIO = 100


def images_from_bytes(image_bytes: tf.Tensor, record: RunRecord) -> tf.Tensor:
    """Decode, resize, crop and scale a batch of files as the record says.

    Args:
        image_bytes: (batch,) strings, each the content of one JPEG or PNG file.
        record: Image size, preprocessing and value range.

    Returns:
        (batch, height, width, 3) float32.

    Raises:
        tf.errors.InvalidArgumentError: An image is neither JPEG nor PNG: the message
            gives its position in the request, as it does for one of more than 100
            megapixels or, before a central crop, with sides beyond 100 to 1: both are
            read off the header. Or one begins as such but is damaged behind: the
            message is the decoder's and gives none.
    """

    def one_image(number_and_content: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        number, content = number_and_content
        with tf.control_dependencies([_assert_image(number, content)]):
            content = tf.identity(content)  # Its header is read after the check.
        with tf.control_dependencies([_assert_size(number, content, record)]):
            image = preprocessing.decode(content)  # (h, w, 3)
        return prepare(image, record)  # (height, width, 3)

    height, width = record.image_size
    pixels = tf.map_fn(
        one_image,
        (tf.range(tf.size(image_bytes)), image_bytes),
        fn_output_signature=tf.TensorSpec((height, width, 3), tf.uint8),
    )  # (batch, height, width, 3)
    return preprocessing.scale_pixels(pixels, *record.value_range)


def prepare(image: tf.Tensor, record: RunRecord) -> tf.Tensor:
    """Return a uint8 image of any size as (height, width, 3), as evaluation does it."""
    height, width = record.image_size
    if record.preprocess == "resize":
        image = preprocessing.resize(image, (height, width))
        return tf.ensure_shape(image, (height, width, 3))
    if record.preprocess == "squash_and_crop":
        image = preprocessing.resize(image, record.smaller_side)
    else:
        image = preprocessing.resize_small(image, record.smaller_side)
    top = (tf.shape(image)[0] - height) // 2
    left = (tf.shape(image)[1] - width) // 2
    image = image[top : top + height, left : left + width]
    return tf.ensure_shape(image, (height, width, 3))


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


def _assert_size(
    number: tf.Tensor, content: tf.Tensor, record: RunRecord
) -> tf.Operation:
    """Return an operation that fails if decoding would take too much memory."""
    height, width = preprocessing.size_in_header(content)
    small = preprocessing.has_at_most_pixels(height, width, MAX_PIXELS)
    if record.preprocess == "central_crop":
        small &= tf.maximum(height, width) <= MAX_RATIO * tf.minimum(height, width)
    message = tf.strings.join(
        [
            "`image_bytes` must hold images of at most 100 megapixels",
            f" and sides of at most {MAX_RATIO} to 1"
            if record.preprocess == "central_crop"
            else "",
            "; image ",
            tf.strings.as_string(number),
            " of the request is ",
            tf.strings.as_string(height),
            "x",
            tf.strings.as_string(width),
            " pixels. Shrink or cut it first.",
        ]
    )
    return tf.debugging.Assert(small, [message])
