"""Our own .npz holds the model's arguments and arrays."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from tests.applications.cases import NAMED, TINY
from vit_scaling.applications.formats import native_npz
from vit_scaling.applications.formats.vit_weights import ReadOptions


def test_written_arrays_are_read_back():
    weights = NAMED["timm_options"].read()
    arrays = native_npz.write_native(weights)
    find_prefix = native_npz.FORMAT.find_prefix
    assert find_prefix(arrays) == "" and find_prefix(weights.variables) is None
    again = native_npz.read_native(arrays, ReadOptions())
    assert again.arguments == weights.arguments
    assert again.variables.keys() == weights.variables.keys()
    for path, value in weights.variables.items():
        np.testing.assert_array_equal(again.variables[path], value)


def test_arguments_go_through_text():
    given = {"shape": TINY, "image_size": (4, 6), "head": "map", "layer_scale": None}
    assert native_npz.arguments_from_text(native_npz.arguments_as_text(given)) == given
