"""Our own files hold arguments and arrays, and copies of a model tell theirs."""
# SPDX-License-Identifier: Apache-2.0

import keras
import numpy as np
import pytest

from tests.applications.cases import NAMED, TINY
from vit_scaling.applications.formats import own
from vit_scaling.modeling.vit import vit

# Keras turns its variables into arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def test_written_arrays_are_read_back():
    weights = NAMED["timm_options"].read()
    arrays = own.write_own(weights)
    assert own.is_own(set(arrays)) and not own.is_own(set(weights.variables))
    again = own.read_own(arrays)
    assert again.arguments == weights.arguments
    assert again.variables.keys() == weights.variables.keys()
    for path, value in weights.variables.items():
        np.testing.assert_array_equal(again.variables[path], value)


def test_arguments_go_through_text():
    given = {"shape": TINY, "image_size": (4, 6), "head": "map", "layer_scale": None}
    assert own.arguments_from_text(own.arguments_as_text(given)) == given


@pytest.mark.parametrize(
    "options",
    [
        {"head": "token", "register_tokens": 2},
        {"head": "gap", "norm_after_pooling": True},
        {"head": "map", "qk_norm": True, "layer_scale": 0.5, "classes": None},
    ],
    ids=str,
)
def test_clone_with_a_softmax_tells_the_arguments_it_was_made_with(options):
    model = vit(TINY, **{"image_size": 4, "classes": 3, **options})
    clone = keras.models.clone_model(model)
    softmax = keras.layers.Softmax(name="predictions")(clone.output)
    weights = own.weights_of(keras.Model(clone.input, softmax))
    for name, value in {"shape": TINY, "image_size": (4, 4), **options}.items():
        assert weights.arguments[name] == value
    assert weights.variables.keys() == {v.path for v in model.variables}


def test_layers_in_front_do_not_change_the_size_of_the_positions():
    images = keras.Input((6, 8, 3))
    cropped = keras.layers.CenterCrop(4, 4)(images)
    model = vit(TINY, head="map", input_tensor=cropped, classes=3)
    model = keras.Model(images, model.output)
    weights = own.weights_of(model)
    assert weights.arguments["image_size"] == (4, 4)
    path = "position_embedding/embedding"
    assert weights.variables[path].shape == (1, 4, TINY.width)


def test_model_whose_parts_do_not_fit_together_is_no_vit():
    model = vit(TINY, head="map", image_size=4, classes=3)
    model.get_layer("block_00").mlp_width = 16
    with pytest.raises(ValueError, match="'block_00/mlp/dense_0/kernel' is"):
        own.weights_of(model)
