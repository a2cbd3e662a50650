"""Arrays keep the names that the file gave them, through every renaming."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.applications.formats.source_arrays import SourceArrays, count_blocks


def source():
    names = ("model.a.weight", "model.b.weight", "text.a", "step")
    return SourceArrays("timm", {name: np.full(1, n) for n, name in enumerate(names)})


def test_renaming_twice_remembers_the_name_in_the_file():
    arrays = source()
    arrays.rename("^model\\.", "")
    arrays.rename(r"\.weight$", "/kernel")
    assert arrays.arrays["a/kernel"] == 0 and arrays.arrays["b/kernel"] == 1
    assert arrays.origin["a/kernel"] == "model.a.weight"
    assert arrays.origin["step"] == "step"


def test_what_is_left_out_is_reported_under_the_name_in_the_file():
    arrays = source()
    arrays.rename("^model\\.", "")
    arrays.leave_out(r"a\.weight|text\..*", "asked")
    assert arrays.left_out == {"model.a.weight": "asked", "text.a": "asked"}
    assert set(arrays.arrays) == {"b.weight", "step"}
    arrays.leave_out(r"model\.b\.weight", "by its original name")
    assert set(arrays.arrays) == {"step"}


def test_only_whole_names_match():
    arrays = source()
    arrays.leave_out("a|weight|te", "no whole name")
    assert len(arrays.arrays) == 4 and not arrays.left_out


def test_prefix_is_stripped_and_the_rest_left_out():
    arrays = source()
    arrays.keep_prefix("model.")
    assert set(arrays.arrays) == {"a.weight", "b.weight"}
    assert arrays.left_out == dict.fromkeys(
        ("text.a", "step"), "not part of the image model ('model.')"
    )


def test_blocks_must_be_numbered_without_a_gap():
    assert count_blocks(["b.0.x", "b.1.x", "c"], "b.{block}.x") == 2
    with pytest.raises(ValueError, match=r"found \[0, 2\]"):
        count_blocks(["b.0.x", "b.2.x"], "b.{block}.x")
