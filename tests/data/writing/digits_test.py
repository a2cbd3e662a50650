"""The digits as a list of images."""
# SPDX-License-Identifier: Apache-2.0

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from vit_scaling.data.writing.digits import Digits


def test_digits_are_divided_into_train_and_test():
    train, test = (Digits(split).entries() for split in ("train", "test"))
    assert (len(train), len(test)) == (1438, 359)
    assert not {entry.key for entry in train} & {entry.key for entry in test}
    with pytest.raises(ValueError, match="must be train or test; received 'dev'"):
        Digits("dev")


def test_digits_are_enlarged_by_their_scale():
    source = pickle.loads(pickle.dumps(Digits("test", scale=3)))  # As for a worker.
    entry = source.entries()[0]
    with Image.open(io.BytesIO(source.read(entry))) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (24, 24)
    small = pixels[::3, ::3]
    np.testing.assert_array_equal(pixels, small.repeat(3, 0).repeat(3, 1))
