"""The registry of pooling heads agrees with the Keras layers."""
# SPDX-License-Identifier: Apache-2.0

import typing

import pytest

from vit_scaling.modeling.head_specs import HEADS, POOLING_HEADS, HeadName, head_named
from vit_scaling.modeling.heads import HEAD_LAYERS


def test_every_pooling_head_has_a_layer_and_they_agree_on_the_class_token():
    assert set(HEAD_LAYERS) == set(POOLING_HEADS)
    for name, layer in HEAD_LAYERS.items():
        assert layer.uses_class_token == HEADS[name].uses_class_token


def test_heads_are_found_by_name():
    assert head_named("token").description == "class token"
    with pytest.raises(ValueError, match=r"received 'maap'. Did you mean 'map'"):
        head_named("maap")
    with pytest.raises(ValueError, match=r"received 'xyz'\.$"):  # Nothing is close.
        head_named("xyz")


def test_the_type_of_names_lists_the_registry():
    assert typing.get_args(HeadName) == tuple(HEADS)
