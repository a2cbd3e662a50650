"""Misspelt names get the nearest name, or none."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling import naming


def test_suggestions_ignore_case_and_never_reach_far():
    assert naming.nearest("ADAFACTOR ", ["Adam", "Adafactor"]) == ["Adafactor"]
    assert naming.nearest("constant", ["TPU", "GPU"]) == []
    assert naming.did_you_mean("constant", ["TPU", "GPU"]) == ""
    assert naming.did_you_mean("b16", ["B/16", "B/32"]) == " Did you mean 'B/16'?"


def test_unknown_value_is_rejected_with_all_known_ones():
    naming.check_known("head", "map", ["map", "gap"])
    expected = r"`head` must be one of map, gap; received 'mapp'. Did you mean 'map'\?"
    with pytest.raises(ValueError, match=expected):
        naming.check_known("head", "mapp", ["map", "gap"])
    with pytest.raises(ValueError, match=r"received None\.$"):
        naming.check_known("head", None, ["map", "gap"])


def test_names_that_begin_with_the_given_text_are_suggested_first():
    message = naming.unknown_name_message("device", "a100", ["v100", "a100_40gb"])
    assert message == (
        "No device is called 'a100'. Did you mean 'a100_40gb'? Known: v100, a100_40gb."
    )
    assert naming.nearest("", ["v100"]) == []
    assert naming.nearest("x", []) == []


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Q/16", ["S/16", "M/16", "L/16"]),  # As near to one as to the others.
        ("E", ["EvalData", "Adam"]),
        ("resnet", ["Resize"]),
        ("size", ["Cosine"]),
        ("image", ["imagenet_wordnet_numbers"]),
    ],
)
def test_names_that_are_not_a_typing_error_away_are_not_suggested(name, known):
    assert naming.nearest(name, known) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [("mpa", "map"), ("L/61", "L/16"), ("fewshot", "FewShot"), ("AdamW", "Adam")],
)
def test_a_typing_error_or_another_case_is_recognised(name, expected):
    known = ["map", "gap", "L/16", "S/16", "FewShot", "FewShotSet", "Adam"]
    assert naming.nearest(name, known) == [expected]
