"""Decode image files into a model's input, inside the graph of a SavedModel."""
# SPDX-License-Identifier: Apache-2.0

import tensorflow as tf

from vit_scaling import image_headers, image_preprocessing
from vit_scaling.data.image_data import MAX_PIXELS
from vit_scaling.image_preprocessing import (
    EvaluationPreprocessing,
    preprocessing_from_record,
)
from vit_scaling.run_record import RunRecord

# Images of a request that are decoded at the same time, as far as there are cores. An
# image may take 300 MB (MAX_PIXELS).
PARALLEL_IMAGES = 8
# A crop that resizes the smaller side would make gigabytes of a line of pixels.
MAX_RATIO = 100


def decode_images(image_bytes: tf.Tensor, record: RunRecord) -> tf.Tensor:
    """Decode a batch of image files and prepare them as the run's evaluation did.

    Args:
        image_bytes: (batch,) strings, each the content of one JPEG, PNG, WebP, BMP or
            GIF file (its first frame): what training reads.
        record: Image size, preprocessing and value range.

    Returns:
        (batch, height, width, 3) float32.

    Raises:
        tf.errors.InvalidArgumentError: An image is of another format, has more than
            100 megapixels or, before a central crop, has sides beyond 100 to 1; the
            message gives its position in the request. Or an image is damaged after its
            header, an animated WebP, or a BMP that TensorFlow would misread; that
            message does not give the position.
    """
    preprocessing = preprocessing_from_record(record)

    def decode_image(number_and_content: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        number, content = number_and_content
        with tf.control_dependencies([_assert_format(number, content)]):
            content = tf.identity(content)  # The header is read after the check.
        with tf.control_dependencies([_assert_size(number, content, preprocessing)]):
            return preprocessing(content, record.image_size)  # (height, width, 3)

    pixels = tf.map_fn(
        decode_image,
        (tf.range(tf.size(image_bytes)), image_bytes),
        fn_output_signature=tf.TensorSpec((*record.image_size, 3), tf.uint8),
        parallel_iterations=PARALLEL_IMAGES,
    )  # (batch, height, width, 3)
    return image_preprocessing.scale_pixels(pixels, *record.value_range)


def _assert_format(number: tf.Tensor, content: tf.Tensor) -> tf.Operation:
    """Return an operation that fails unless `content` begins like an image."""
    message = tf.strings.join(
        [
            "`image_bytes` must hold complete JPEG, PNG, WebP, BMP or GIF files; ",
            "image ",
            tf.strings.as_string(number),
            " of the request (",
            tf.strings.as_string(tf.strings.length(content)),
            " bytes) is of another format. Send the file's bytes, in REST as base64 "
            "under b64.",
        ]
    )
    is_known = image_headers.is_known_format(content)
    return tf.debugging.Assert(is_known, [message])


def _assert_size(
    number: tf.Tensor, content: tf.Tensor, preprocessing: EvaluationPreprocessing
) -> tf.Operation:
    """Return an operation that fails if decoding would take too much memory."""
    height, width = image_headers.size_in_header(content)
    is_small = image_headers.has_at_most_pixels(height, width, MAX_PIXELS)
    limit = "at most 100 megapixels"
    if preprocessing.resizes_smaller_side:
        is_small &= tf.maximum(height, width) <= MAX_RATIO * tf.minimum(height, width)
        limit += f" and sides of at most {MAX_RATIO} to 1"
    message = tf.strings.join(
        [
            f"`image_bytes` must hold images of {limit}; image ",
            tf.strings.as_string(number),
            " of the request is ",
            tf.strings.as_string(height),
            "x",
            tf.strings.as_string(width),
            " pixels. Shrink or crop it first.",
        ]
    )
    return tf.debugging.Assert(is_small, [message])
