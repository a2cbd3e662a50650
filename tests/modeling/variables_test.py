"""The list of variables is that of the models that are really built."""
# SPDX-License-Identifier: Apache-2.0

import math

import pytest

from tests.modeling.small import IMAGE_SIZE, SHAPE
from vit_scaling.modeling.head_specs import HEADS
from vit_scaling.modeling.variables import (
    is_matrix,
    is_pooling_variable,
    vit_variables,
)
from vit_scaling.modeling.vit import vit

OPTIONS = {
    "defaults": {},
    "no_classifier": {"classes": None},
    "sincos": {"position": "sincos"},
    "representation": {"representation_width": 5, "register_tokens": 3},
    "options": {"layer_scale": 0.1, "qk_norm": True, "approximate_gelu": False},
    "norm_before_blocks": {"norm_before_blocks": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("head", HEADS)
def test_variables_are_those_of_the_built_model(head, options):
    options = {"image_size": IMAGE_SIZE, "classes": 5, **options}
    model = vit(SHAPE, head, **options)
    listed = vit_variables(SHAPE, head, **options)
    assert listed == {v.path: tuple(v.shape) for v in model.variables}
    assert sum(map(math.prod, listed.values())) == model.count_params()


def test_kinds_of_variables():
    variables = vit_variables(SHAPE, "token", image_size=16, representation_width=5)
    pooling = {path for path in variables if is_pooling_variable(path)}
    assert pooling == {"class_token/token", "pre_logits/kernel", "pre_logits/bias"}
    assert is_matrix("block_00/attention/query/kernel")
    assert not is_matrix("block_00/attention/query/bias")


def test_an_unknown_head_is_rejected():
    with pytest.raises(ValueError, match="Did you mean 'gap'"):
        vit_variables(SHAPE, "gpa")
