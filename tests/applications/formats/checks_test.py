"""What does not hold together is refused by the name of the array."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.applications.formats import checks
from vit_scaling.applications.formats.layout import expected_variables
from vit_scaling.applications.formats.source import Request, Source
from vit_scaling.modeling.shapes import as_shape

ARGUMENTS = {"shape": as_shape("mu/16"), "head": "map", "image_size": 32, "classes": 3}


@pytest.fixture
def variables():
    shapes = expected_variables(ARGUMENTS)
    return {path: np.ones(shape, np.float32) for path, shape in shapes.items()}


def test_whole_set_of_variables_passes(variables):
    checks.check_complete(variables, {}, ARGUMENTS)
    checks.check_asked_shape(variables, {}, ARGUMENTS, Request(shape="mu/16"))
    checks.check_asked_shape(variables, {}, ARGUMENTS, Request())


def test_other_shape_names_array_shapes_and_what_fits(variables):
    names = dict.fromkeys(variables, "theirs")
    with pytest.raises(ValueError, match=r"'theirs' makes .*fit: mu/16\."):
        checks.check_asked_shape(variables, names, ARGUMENTS, Request(shape="B/16"))


def test_missing_variable_and_wrong_size_are_named(variables):
    held = variables.pop("block_00/mlp/dense_0/bias")
    with pytest.raises(ValueError, match=r"lacks 1 of \d+ .*mlp/dense_0/bias"):
        checks.check_complete(variables, {}, ARGUMENTS)
    variables["block_00/mlp/dense_0/bias"] = held[1:]
    with pytest.raises(ValueError, match=r"'b1' makes 'block_00/mlp.*\(127,\)"):
        checks.check_complete(variables, {"block_00/mlp/dense_0/bias": "b1"}, ARGUMENTS)


def test_biases_that_no_block_has_are_zero(variables):
    for part in ("query", "key", "value"):
        variables.pop(f"block_00/attention/{part}/bias")
    filled = checks.fill_zeros(variables, ARGUMENTS)
    assert len(filled) == 3
    for path in filled:
        assert not variables[path].any()
    checks.check_complete(variables, {}, ARGUMENTS)


def test_bias_that_may_not_be_missing_is_not_made_up(variables):
    variables.pop("head/bias")
    assert checks.fill_zeros(variables, ARGUMENTS) == ()
    assert "head/bias" not in variables


def test_arrays_that_stand_for_nothing_are_listed_as_the_file_has_them():
    source = Source("x", {"a": np.ones(1), "b": np.ones(1)}, {"b": "model.b"})
    with pytest.raises(ValueError, match=r"1 arrays stand for nothing .*: model\.b\."):
        checks.refuse_rest(source, {"a"})
    checks.refuse_rest(source, {"a", "b"})
