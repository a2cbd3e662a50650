"""Hugging Face's files are told apart, and their configuration is believed."""
# SPDX-License-Identifier: Apache-2.0

import json
import os

import pytest

from tests.applications.cases import NAMED
from vit_scaling.applications.formats import arrays, huggingface
from vit_scaling.applications.formats.source import Request

CASES = [name for name in NAMED if name.startswith("hf_")]


def held(name):
    found, _ = arrays.read_safetensors(NAMED[name].path)
    with open(os.path.join(os.path.dirname(NAMED[name].path), "config.json")) as file:
        return found, json.load(file)


@pytest.mark.parametrize("name", CASES)
def test_files_are_recognised_with_their_tower(name):
    found, config = held(name)
    assert huggingface.is_huggingface(set(found))
    weights = huggingface.read_huggingface(found, Request(), config)
    assert weights.layout == NAMED[name].layout
    assert weights.arguments["head"] == NAMED[name].head
    assert weights.shape.heads == 2


def test_other_projects_files_are_not():
    timm, _ = arrays.read_safetensors(NAMED["timm_token"].path)
    assert not huggingface.is_huggingface(set(timm))


def test_epsilon_of_the_configuration_counts():
    found, config = held("hf_vit")
    changed = {**config, "layer_norm_eps": 0.25}
    weights = huggingface.read_huggingface(found, Request(), changed)
    assert weights.arguments["norm_epsilon"] == 0.25


def test_without_a_configuration_the_heads_are_asked_for():
    found, _ = held("hf_vit")
    with pytest.raises(ValueError, match="number of attention heads"):
        huggingface.read_huggingface(found, Request(), {})
    weights = huggingface.read_huggingface(found, Request(heads=4), {})
    assert weights.shape.heads == 4
