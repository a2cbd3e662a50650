"""Variables listed for a layer are those that the layer creates."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.modeling.small import SHAPE
from vit_scaling.modeling.attention import Attention
from vit_scaling.modeling.layer_variables import attention_variables, mlp_variables
from vit_scaling.modeling.layers import Mlp


def built_variables(layer):
    layer.build((None, 6, SHAPE.width))
    return {variable.path: tuple(variable.shape) for variable in layer.variables}


@pytest.mark.parametrize("qk_norm", [False, True])
def test_attention(qk_norm):
    layer = Attention(SHAPE.heads, qk_norm=qk_norm, name="attention")
    listed = attention_variables("attention", SHAPE, qk_norm=qk_norm)
    assert listed == built_variables(layer)


def test_mlp():
    layer = Mlp(SHAPE.mlp_width, name="mlp")
    assert mlp_variables("mlp", SHAPE) == built_variables(layer)
