"""Arguments and weights are read from a ViT and its copies, not from other models."""
# SPDX-License-Identifier: Apache-2.0

import re

import keras
import pytest

from tests.applications.cases import TINY
from vit_scaling.applications.formats.keras_models import (
    layers_before,
    preprocessing_layers,
    weights_of_model,
)
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


def vit_behind(layers):
    """Return a ViT on the output of `layers`, a function of the images."""
    images = keras.Input((4, 4, 3))
    return vit(TINY, input_tensor=layers(images), classes=3)


def second_vit(images):
    inner = vit(TINY, head="none", image_size=4, classes=None, name="inner")
    return keras.layers.Dense(3)(keras.layers.Reshape((4, 4, 2))(inner(images)))


@pytest.mark.parametrize(
    ("layers", "name"),
    [
        (keras.layers.Rescaling(1 / 127.5, -1, name="scale"), "'scale' (Rescaling)"),
        (keras.layers.Normalization(name="norm", mean=0.5, variance=2), "'norm' (Norm"),
        (keras.layers.RandomFlip(name="flip"), "'flip' (RandomFlip)"),
        (lambda images: images / 127.5 - 1, "(TrueDivide)"),  # Not Keras layers.
        (second_vit, "'inner' (Functional)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layers_before_the_vit_are_named(layers, name):
    message = re.escape(name) + r".* before it, which would be lost"
    with pytest.raises(ValueError, match=message):
        weights_of_model(vit_behind(layers))


def test_layers_after_or_inside_the_vit_are_named():
    model = vit(TINY, image_size=4, classes=3)
    scaled = keras.layers.Rescaling(2.0, name="temperature")(model.output)
    message = r"'temperature' \(Rescaling\) in or after it"
    with pytest.raises(ValueError, match=message):
        weights_of_model(keras.Model(model.input, scaled))


def test_vit_inside_a_sequential_model_is_named():
    inner = vit(TINY, image_size=4, classes=None, name="inner")
    model = keras.Sequential([keras.Input((4, 4, 3)), inner, keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"has 'inner' \(Functional\), 'dense.*Take a"):
        weights_of_model(model)


def test_advice_for_layers_in_front_gives_the_vit_alone():
    model = vit_behind(keras.layers.Rescaling(1 / 127.5, -1))
    part = model.get_layer("patch_embedding").input
    alone = keras.Model(part, model.get_layer("head").output)
    weights = weights_of_model(alone)
    assert weights.variables.keys() == {v.path for v in model.variables}
    assert preprocessing_layers(alone) == layers_before(alone) == []


def test_model_whose_parts_do_not_fit_together_is_no_vit():
    model = vit(TINY, head="map", image_size=4, classes=3)
    model.get_layer("block_00").mlp_width = 16
    with pytest.raises(ValueError, match="'block_00/mlp/dense_0/kernel' is"):
        weights_of_model(model)
