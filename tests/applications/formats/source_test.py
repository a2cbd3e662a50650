"""Arrays keep the names that the file gave them, through every renaming."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.applications.formats.source import (
    Request,
    Source,
    attention_heads,
)


def source():
    names = ("model.a.weight", "model.b.weight", "text.a", "step")
    return Source("timm", {name: np.full(1, n) for n, name in enumerate(names)})


def test_renaming_twice_remembers_the_name_in_the_file():
    made = source()
    made.rename(lambda name: name.replace("model.", ""))
    made.rename(lambda name: name.replace(".weight", "/kernel"))
    assert made.arrays["a/kernel"] == 0 and made.arrays["b/kernel"] == 1
    assert made.origin["a/kernel"] == "model.a.weight"
    assert made.origin["step"] == "step"


def test_what_is_left_out_is_reported_under_the_name_in_the_file():
    made = source()
    made.rename(lambda name: name.replace("model.", ""))
    made.leave_out(r"a\.weight|text\..*", "asked")
    assert made.left_out == {"model.a.weight": "asked", "text.a": "asked"}
    assert set(made.arrays) == {"b.weight", "step"}
    made.leave_out(r"model\.b\.weight", "by its original name")
    assert set(made.arrays) == {"step"}


def test_only_whole_names_match():
    made = source()
    made.leave_out("a|weight|te", "no whole name")
    assert len(made.arrays) == 4 and not made.left_out


def test_prefix_is_stripped_and_the_rest_left_out():
    made = source()
    made.keep_only("model.", "another tower")
    assert set(made.arrays) == {"a.weight", "b.weight"}
    assert made.left_out == {"text.a": "another tower", "step": "another tower"}


def test_heads_of_a_named_shape_are_taken_and_reported():
    source = Source("timm", {})
    assert attention_heads(source, Request(), None, (384, 12, 1536)) == 6
    assert source.assumed[0].startswith("6 attention heads, as the named shape 'S'")
    told = Source("timm", {})
    assert attention_heads(told, Request(heads=4), None, (384, 12, 1536)) == 4
    assert attention_heads(told, Request(shape="S/16"), None, (384, 12, 1536)) == 6
    assert attention_heads(told, Request(), 12, (384, 12, 1536)) == 12
    assert not told.assumed


def test_heads_that_contradict_the_named_shape_are_refused():
    request = Request(heads=12, shape="S/16")
    with pytest.raises(ValueError, match="is 12, but `shape` 'S/16' has 6"):
        attention_heads(Source("timm", {}), request, None, (384, 12, 1536))


def test_heads_that_nobody_tells_are_asked_for():
    with pytest.raises(ValueError, match="number of attention heads can't be read"):
        attention_heads(Source("timm", {}), Request(), None, (8, 2, 12))
