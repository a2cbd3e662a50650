"""Arrays that are not exactly a ViT's variables are rejected by name."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.applications.formats import conversion_checks as checks
from vit_scaling.applications.formats.source_arrays import SourceArrays
from vit_scaling.modeling.shapes import as_shape
from vit_scaling.modeling.variables import vit_variables

ARGUMENTS = {"shape": as_shape("mu/16"), "head": "map", "image_size": 32, "classes": 3}


@pytest.fixture
def source():
    shapes = vit_variables(**ARGUMENTS)
    arrays = {path: np.ones(shape, np.float32) for path, shape in shapes.items()}
    return SourceArrays("x", arrays)


def test_complete_set_of_variables_passes(source):
    checks.check_complete(source, ARGUMENTS)
    checks.check_requested_shape(source, ARGUMENTS, "mu/16")
    checks.check_requested_shape(source, ARGUMENTS, None)
    checks.check_all_used(source, ARGUMENTS, [])


def test_other_shape_names_array_shapes_and_what_fits(source):
    source.origin = dict.fromkeys(source.arrays, "theirs")
    with pytest.raises(ValueError, match=r"'theirs' gives .*fit: mu/16\."):
        checks.check_requested_shape(source, ARGUMENTS, "B/16")


def test_missing_variable_and_wrong_size_are_named(source):
    bias = source.arrays.pop("block_00/mlp/dense_0/bias")
    with pytest.raises(ValueError, match=r"1 of \d+ .*missing: .*mlp/dense_0/bias"):
        checks.check_complete(source, ARGUMENTS)
    source.arrays["block_00/mlp/dense_0/bias"] = bias[1:]
    source.origin["block_00/mlp/dense_0/bias"] = "b1"
    with pytest.raises(ValueError, match=r"'b1' gives 'block_00/mlp.*\(127,\)"):
        checks.check_complete(source, ARGUMENTS)


def test_biases_that_no_block_has_are_zero(source):
    for part in ("query", "key", "value"):
        source.arrays.pop(f"block_00/attention/{part}/bias")
    filled = checks.fill_zeros(source, ARGUMENTS)
    assert len(filled) == 3
    for path in filled:
        assert not source.arrays[path].any()
    checks.check_complete(source, ARGUMENTS)


def test_bias_that_is_required_is_not_filled_with_zeros(source):
    source.arrays.pop("head/bias")
    assert checks.fill_zeros(source, ARGUMENTS) == ()
    assert "head/bias" not in source.arrays


def test_arrays_without_a_counterpart_are_listed_under_their_names_in_the_file(source):
    source.arrays["b"], source.origin["b"] = np.ones(1), "model.b"
    match = r"2 arrays have no counterpart .*: a, model\.b\."
    with pytest.raises(ValueError, match=match):
        checks.check_all_used(source, ARGUMENTS, ["a"])
