"""Arrays keep the names that the file gave them, through every renaming."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.applications.formats.source import Request, Source


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


@pytest.mark.parametrize(
    ("request_", "heads"),
    [
        (Request(), 12),  # B's numbers, below.
        (Request(heads=5), 5),
        (Request(shape="S/16"), 6),
        (Request(shape="S/16", heads=5), 5),
    ],
)
def test_heads_are_the_callers_the_shapes_or_those_of_the_variant(request_, heads):
    assert request_.attention_heads(768, 12, 3072) == heads


def test_heads_that_nothing_tells_are_asked_for():
    with pytest.raises(ValueError, match=r"width 10, depth 1, MLP 20\. Give"):
        Request().attention_heads(10, 1, 20)
