"""Arguments and weights are read from a ViT and its copies, not from other models."""
# SPDX-License-Identifier: Apache-2.0

import keras
import pytest

from tests.applications.cases import TINY
from vit_scaling.applications.formats.keras_models import weights_of_model
from vit_scaling.modeling.vit import vit

# Keras turns its variables into arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


@pytest.mark.parametrize(
    "options",
    [
        {"head": "token", "register_tokens": 2},
        {"head": "gap", "norm_after_pooling": True},
        {"head": "map", "qk_norm": True, "layer_scale": 0.5, "classes": None},
    ],
    ids=str,
)
def test_clone_with_a_softmax_has_the_arguments_of_its_original(options):
    model = vit(TINY, **{"image_size": 4, "classes": 3, **options})
    clone = keras.models.clone_model(model)
    softmax = keras.layers.Softmax(name="predictions")(clone.output)
    weights = weights_of_model(keras.Model(clone.input, softmax))
    for name, value in {"shape": TINY, "image_size": (4, 4), **options}.items():
        assert weights.arguments[name] == value
    assert weights.variables.keys() == {v.path for v in model.variables}


def test_layers_in_front_do_not_change_the_size_of_the_positions():
    images = keras.Input((6, 8, 3))
    cropped = keras.layers.CenterCrop(4, 4)(images)
    model = vit(TINY, head="map", input_tensor=cropped, classes=3)
    model = keras.Model(images, model.output)
    weights = weights_of_model(model)
    assert weights.arguments["image_size"] == (4, 4)
    path = "position_embedding/embedding"
    assert weights.variables[path].shape == (1, 4, TINY.width)


def test_model_whose_parts_do_not_fit_together_is_no_vit():
    model = vit(TINY, head="map", image_size=4, classes=3)
    model.get_layer("block_00").mlp_width = 16
    with pytest.raises(ValueError, match="'block_00/mlp/dense_0/kernel' is"):
        weights_of_model(model)
