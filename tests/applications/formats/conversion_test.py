"""Converted weights account for every array; another head may be requested."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.applications.cases import NAMED
from vit_scaling.applications.formats.conversion import find_heads, reconvert
from vit_scaling.applications.formats.vit_weights import ReadOptions

MAP, TOKEN = NAMED["bv_map"], NAMED["bv_token"]


def test_default_options_change_nothing():
    read = MAP.read()
    again = reconvert(read, ReadOptions())
    assert again.arguments == read.arguments
    assert again.variables.keys() == read.variables.keys()
    for path, value in read.variables.items():
        np.testing.assert_array_equal(again.variables[path], value)


def test_map_head_with_its_classifier_is_not_taken_apart():
    with pytest.raises(ValueError, match="classifier was trained on its MAP head"):
        reconvert(MAP.read(), ReadOptions(head="gap"))


def test_map_head_goes_with_its_classifier_and_every_array_is_accounted_for():
    read = MAP.read()
    body = reconvert(read, ReadOptions(head="none", ignore="head/.*"))
    assert body.arguments["head"] == "none" and body.arguments["classes"] is None
    gone = set(read.variables) - set(body.variables)
    assert gone == {
        path for path in read.variables if path.startswith(("map_", "head"))
    }
    assert gone <= set(body.left_out)


def test_class_token_that_no_head_reads_becomes_a_register():
    read = TOKEN.read()
    with pytest.raises(ValueError, match="classifier was trained on its class token"):
        reconvert(read, ReadOptions(head="gap"))
    body = reconvert(read, ReadOptions(head="gap", ignore="head/.*"))
    assert body.arguments["register_tokens"] == 1
    np.testing.assert_array_equal(
        body.variables["register_tokens/tokens"], read.variables["class_token/token"]
    )


def test_head_that_the_arrays_do_not_make_is_rejected_with_those_that_they_do():
    with pytest.raises(ValueError, match="Use 'token' or 'gap' or 'none'"):
        reconvert(TOKEN.read(), ReadOptions(head="map"))


def test_heads_are_those_that_the_caller_or_the_file_states():
    sizes = (384, 12, 1536)
    assert find_heads(ReadOptions(heads=4), None, sizes) == 4
    assert find_heads(ReadOptions(shape="S/16"), None, sizes) == 6
    assert find_heads(ReadOptions(), 12, sizes) == 12


def test_heads_are_never_guessed_from_the_width():
    message = r"width 384.*Give `heads` \(--heads.*in the paper has 6"
    with pytest.raises(ValueError, match=message):
        find_heads(ReadOptions(), None, (384, 12, 1536))


def test_heads_that_contradict_the_named_shape_are_rejected():
    options = ReadOptions(heads=12, shape="S/16")
    with pytest.raises(ValueError, match="is 12, but `shape` 'S/16' has 6"):
        find_heads(options, None, (384, 12, 1536))


def test_unknown_number_of_heads_is_an_error():
    with pytest.raises(ValueError, match=r"width 8.*Give `heads` \(--heads"):
        find_heads(ReadOptions(), None, (8, 2, 12))
