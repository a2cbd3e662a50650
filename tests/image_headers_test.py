"""Sizes in the headers of image files that Pillow wrote."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import tensorflow as tf

from tests.data import sets
from vit_scaling.image_headers import has_at_most_pixels, size_in_header


def test_sizes_are_read_from_headers():
    photo = sets.photograph()[:31, :47]
    files = [sets.encoded(photo, kind) for kind in ("PNG", "JPEG", "GIF", "BMP")]
    alpha = np.dstack([photo, photo[..., 0]])
    for pixels in (photo, alpha):
        files += [sets.encoded(pixels, "WEBP", lossless=flag) for flag in (False, True)]
    for data in files:
        assert [int(n) for n in size_in_header(tf.constant(data))] == [31, 47]
    assert [int(n) for n in size_in_header(tf.constant(b"?"))] == [0, 0]


def test_sides_whose_product_overflows_are_too_large():
    side = tf.constant(2**40, tf.int64)
    assert not has_at_most_pixels(side, side, 100)
    assert has_at_most_pixels(tf.constant(10, tf.int64), tf.constant(10, tf.int64), 100)
