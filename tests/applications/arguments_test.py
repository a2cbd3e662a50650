"""The arguments shared with Keras Applications are checked in Keras' words."""
# SPDX-License-Identifier: Apache-2.0

import keras
import pytest

from vit_scaling.applications import arguments


def images(tensor=None, shape=None, *, patch=16, size=32, needs_colours=False):
    return arguments.make_images_input(
        tensor, shape, patch=patch, size=size, needs_colours=needs_colours
    )


def test_default_is_the_size_and_three_channels():
    assert images().shape == (None, 32, 32, 3)
    assert images(size=(32, 48)).shape == (None, 32, 48, 3)
    assert images().name == "images" and images().dtype == "float32"


def test_given_tensor_is_built_on_and_must_have_the_shape():
    tensor = keras.Input((32, 48, 3))
    assert images(tensor) is tensor
    assert images(tensor, (32, 48, 3)) is tensor
    with pytest.raises(ValueError, match="must be that of `input_tensor`"):
        images(tensor, (48, 32, 3))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((32, 32), "tuple of three integers"),
        ((32, None, 3), "static `input_shape`"),
        ((15, 32, 3), "at least 16x16"),
        ((32, 32, 1), "3 channels when weights are loaded"),
    ],
)
def test_shapes_that_cannot_be_are_rejected(shape, message):
    with pytest.raises(ValueError, match=message):
        images(shape=shape, needs_colours=True)


def test_unusual_channels_are_warned_of():
    with pytest.warns(UserWarning, match="with 5 input channels"):
        assert images(shape=(16, 16, 5)).shape == (None, 16, 16, 5)


@pytest.mark.parametrize("pooling", [None, "avg", "max", "head"])
def test_poolings_are_keras_and_the_head(pooling):
    arguments.check_choice("pooling", pooling, arguments.POOLINGS)


def test_other_poolings_are_rejected():
    with pytest.raises(ValueError, match="Received: pooling=mean"):
        arguments.check_choice("pooling", "mean", arguments.POOLINGS)


def test_weights_allow_three_activations():
    for activation in (None, "softmax", "sigmoid", keras.activations.softmax, "linear"):
        arguments.check_activation(activation, "weights")
    arguments.check_activation("relu", None)
    with pytest.raises(ValueError, match="classifier_activation=relu"):
        arguments.check_activation("relu", "weights")


def test_missing_weights_are_an_error_in_keras_words():
    with (
        pytest.raises(ValueError, match="`weights` argument should be either"),
        arguments.missing_weights_error("a.weights.h5"),
    ):
        raise FileNotFoundError("a.weights.h5")
