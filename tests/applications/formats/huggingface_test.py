"""Hugging Face's files are recognised, and their configuration is used."""
# SPDX-License-Identifier: Apache-2.0

import json
import os

import pytest

from tests.applications.cases import NAMED
from vit_scaling import array_files
from vit_scaling.applications.formats import huggingface
from vit_scaling.applications.formats.vit_weights import ReadOptions

CASES = [name for name in NAMED if name.startswith("hf_")]


def held(name):
    found, _ = array_files.read_safetensors(NAMED[name].path)
    with open(os.path.join(os.path.dirname(NAMED[name].path), "config.json")) as file:
        return found, json.load(file)


@pytest.mark.parametrize("name", CASES)
def test_files_are_recognised_with_their_tower(name):
    found, config = held(name)
    assert huggingface.FORMAT.find_prefix(found) is not None
    weights = huggingface.read_huggingface(found, ReadOptions(), config)
    assert weights.layout == NAMED[name].layout
    assert weights.arguments["head"] == NAMED[name].head
    assert weights.shape.heads == 2


def test_other_projects_files_are_not():
    timm, _ = array_files.read_safetensors(NAMED["timm_token"].path)
    assert huggingface.FORMAT.find_prefix(timm) is None


def test_epsilon_of_the_configuration_counts():
    found, config = held("hf_vit")
    changed = {**config, "layer_norm_eps": 0.25}
    weights = huggingface.read_huggingface(found, ReadOptions(), changed)
    assert weights.arguments["norm_epsilon"] == 0.25


def test_without_a_configuration_the_heads_must_be_given():
    found, _ = held("hf_vit")
    with pytest.raises(ValueError, match="number of attention heads"):
        huggingface.read_huggingface(found, ReadOptions(), {})
    weights = huggingface.read_huggingface(found, ReadOptions(heads=4), {})
    assert weights.shape.heads == 4


@pytest.mark.parametrize("act", ["quick_gelu", "relu"])
def test_other_functions_than_gelu_are_rejected_unless_chosen(act):
    found, config = held("hf_siglip_vision")
    config = {**config, "hidden_act": act}
    with pytest.raises(ValueError, match=f"hidden_act='{act}'"):
        huggingface.read_huggingface(found, ReadOptions(), config)
    weights = huggingface.read_huggingface(
        found, ReadOptions(approximate_gelu=True), config
    )
    assert weights.arguments["approximate_gelu"] is True


@pytest.mark.parametrize(
    ("name", "act", "tanh"),
    [
        ("hf_vit", None, False),
        ("hf_siglip_vision", None, True),
        ("hf_vit", "gelu_python", False),
        ("hf_vit", "gelu_new", True),
        ("hf_siglip_vision", "gelu", False),
    ],
)
def test_gelu_is_the_configurations_or_the_models_default(name, act, tanh):
    found, config = held(name)
    config = {key: value for key, value in config.items() if key != "hidden_act"}
    config |= {"hidden_act": act} if act else {}
    weights = huggingface.read_huggingface(found, ReadOptions(), config)
    assert weights.arguments["approximate_gelu"] is tanh


def test_patches_as_rows_of_numbers_are_rejected_as_naflex():
    found, config = held("hf_siglip_vision")
    name = next(name for name in found if name.endswith("patch_embedding.weight"))
    found[name] = found[name].reshape(len(found[name]), -1)
    with pytest.raises(ValueError, match="NaFlex"):
        huggingface.read_huggingface(found, ReadOptions(), config)


def test_without_a_configuration_the_models_defaults_are_reported_as_assumed():
    found, config = held("hf_vit")
    weights = huggingface.read_huggingface(found, ReadOptions(heads=2), {})
    gelu, epsilon, square = weights.assumed
    assert square.startswith("images of 4 x 4 pixels")
    assert gelu.startswith("GELU by erf") and epsilon.startswith("epsilon 1e-12")
    assert not huggingface.read_huggingface(found, ReadOptions(), config).assumed
    options = ReadOptions(
        heads=2, approximate_gelu=False, norm_epsilon=1e-12, source_image_size=4
    )
    assert not huggingface.read_huggingface(found, options, {}).assumed


def test_heads_that_contradict_the_configuration_are_rejected():
    found, config = held("hf_vit")
    with pytest.raises(
        ValueError, match=r"is 4, but the file or its config\.json has 2"
    ):
        huggingface.read_huggingface(found, ReadOptions(heads=4), config)


def test_clip_has_its_norm_before_the_blocks_and_its_own_epsilon():
    found, config = held("hf_clip_vision")
    weights = huggingface.read_huggingface(found, ReadOptions(), config)
    assert weights.arguments["norm_before_blocks"]
    assert weights.arguments["norm_epsilon"] == 1e-5
    assert "patch_embedding/bias" in weights.filled


def test_clip_without_a_configuration_is_taken_for_quick_gelu():
    found, config = held("hf_clip_vision")
    del config["hidden_act"]  # transformers' default, as of OpenAI's files.
    with pytest.raises(ValueError, match="hidden_act='quick_gelu'"):
        huggingface.read_huggingface(found, ReadOptions(), config)


def test_classifier_of_clip_is_rejected():
    found, config = held("hf_clip_vision")
    found["classifier.weight"] = found["post_layernorm.weight"][None]
    with pytest.raises(ValueError, match="average of tokens without the last norm"):
        huggingface.read_huggingface(found, ReadOptions(), config)
