"""Arrays under tidy names become weights; another head may be asked for."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.applications.cases import NAMED
from vit_scaling.applications.formats.assembly import reassemble
from vit_scaling.applications.formats.source import Request

MAP, TOKEN = NAMED["bv_map"], NAMED["bv_token"]


def test_asked_for_as_it_is_nothing_changes():
    read = MAP.read()
    again = reassemble(read, Request())
    assert again.arguments == read.arguments
    assert again.variables.keys() == read.variables.keys()
    for path, value in read.variables.items():
        np.testing.assert_array_equal(again.variables[path], value)


def test_map_head_with_its_classifier_is_not_taken_apart():
    with pytest.raises(ValueError, match="classifier was trained on its MAP head"):
        reassemble(MAP.read(), Request(head="gap"))


def test_map_head_goes_with_its_classifier_and_every_array_is_accounted_for():
    read = MAP.read()
    body = reassemble(read, Request(head="none", ignore="head/.*"))
    assert body.arguments["head"] == "none" and body.arguments["classes"] is None
    gone = set(read.variables) - set(body.variables)
    assert gone == {
        path for path in read.variables if path.startswith(("map_", "head"))
    }
    assert gone <= set(body.left_out)


def test_class_token_that_no_head_reads_becomes_a_register():
    read = TOKEN.read()
    with pytest.raises(ValueError, match="classifier was trained on its class token"):
        reassemble(read, Request(head="gap"))
    body = reassemble(read, Request(head="gap", ignore="head/.*"))
    assert body.arguments["register_tokens"] == 1
    np.testing.assert_array_equal(
        body.variables["register_tokens/tokens"], read.variables["class_token/token"]
    )


def test_head_that_the_arrays_do_not_make_is_refused_with_those_that_they_do():
    with pytest.raises(ValueError, match="Take 'token' or 'gap' or 'none'"):
        reassemble(TOKEN.read(), Request(head="map"))
