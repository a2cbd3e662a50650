"""Bytes become images as evaluation makes them, or are refused by their position."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.export import runs
from vit_scaling.export import image_decoding
from vit_scaling.image_preprocessing import preprocessing_from_record
from vit_scaling.run_record import RunRecord

RECORD = RunRecord(("a",), (32, 48))


def prepare(pixels, record):
    preprocessing = preprocessing_from_record(record)
    return preprocessing.apply(tf.constant(pixels), record.image_size)


def test_batch_of_different_sizes_becomes_one_array_in_the_value_range():
    files = [runs.image_file(60, 70), runs.image_file(200, 90, format="JPEG")]
    images = image_decoding.decode_images(tf.constant(files), RECORD)
    assert images.shape == (2, 32, 48, 3) and images.dtype == tf.float32
    assert -1.0 <= np.min(images) < -0.5 < 0.5 < np.max(images) <= 1.0


def test_value_range_is_the_records():
    record = dataclasses.replace(RECORD, value_range=(0.0, 1.0))
    files = tf.constant([runs.image_file(60, 70)])
    unit = image_decoding.decode_images(files, record)
    signed = image_decoding.decode_images(files, RECORD)
    np.testing.assert_allclose(2 * unit - 1, signed, atol=1e-6)


def test_crop_is_of_the_middle():
    """A bright middle column survives the crop; the borders do not."""
    pixels = np.zeros((55, 200, 3), np.uint8)
    pixels[:, 96:104] = 255
    image = prepare(pixels, RECORD).numpy()
    assert image.shape == (32, 48, 3)
    bright = np.flatnonzero(image[16, :, 0] > 128)
    assert abs(bright.mean() - 23.5) <= 1.0


def test_resize_keeps_the_whole_image():
    pixels = np.zeros((64, 200, 3), np.uint8)
    pixels[:, :40] = 255
    record = dataclasses.replace(RECORD, preprocess="resize")
    image = prepare(pixels, record).numpy()
    assert image[:, :8].min() > 200 and image[:, 12:].max() < 50


@pytest.mark.parametrize("content", [b"", b"II*\0", b"no image"])
def test_bytes_that_are_no_image_are_named_by_their_position(content):
    files = tf.constant([runs.image_file(40, 40), content])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image 1 of the request"):
        image_decoding.decode_images(files, RECORD)


def png_header(height, width):
    """The start of a PNG that says to be of this size."""
    sides = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + sides + b"\x08\x02\x00\x00\x00"


@pytest.mark.parametrize(
    ("preprocess", "sides"),
    [
        ("central_crop", (20_000, 20_000)),
        ("central_crop", (1, 10_000)),
        ("central_crop", (10_000, 99)),
        ("resize", (2**31 - 1, 2**31 - 1)),
        ("squash_and_crop", (1, 100_000_001)),
    ],
)
def test_images_too_large_to_prepare_are_refused_by_their_header(preprocess, sides):
    record = dataclasses.replace(RECORD, preprocess=preprocess)
    files = tf.constant([runs.image_file(40, 40), png_header(*sides)])
    message = rf"image 1 of the request is {sides[0]}x{sides[1]} pixels"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        image_decoding.decode_images(files, record)


def test_long_image_is_refused_only_where_its_smaller_side_is_resized():
    files = tf.constant([runs.image_file(2, 300)])
    record = dataclasses.replace(RECORD, preprocess="resize")
    assert image_decoding.decode_images(files, record).shape == (1, 32, 48, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="of at most 100 to 1"):
        image_decoding.decode_images(files, RECORD)


def test_images_of_a_request_are_decoded_in_parallel():
    """The loop over the images is one that TensorFlow runs several turns of at once."""
    function = tf.function(
        lambda content: image_decoding.decode_images(content, RECORD)
    )
    strings = tf.TensorSpec((None,), tf.string)
    graph = function.get_concrete_function(strings).graph.as_graph_def()
    [loop] = [node for node in graph.node if node.op in ("While", "StatelessWhile")]
    assert loop.attr["parallel_iterations"].i == image_decoding.PARALLEL_IMAGES > 1
