"""Every layout's fixture, written by the peer itself, gives the peer's outputs here."""
# SPDX-License-Identifier: Apache-2.0

import shutil

import numpy as np
import pytest

from tests.applications.cases import CASES, NAMED
from vit_scaling.applications.formats.registry import reference_outputs
from vit_scaling.applications.weights import build_model, read_weights
from vit_scaling.array_files import read_npz, read_safetensors

each_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
CLOSE = 1e-5  # The bound; float32 in two frameworks.


def arrays_of(case):
    read = read_npz if case.path.endswith(".npz") else lambda p: read_safetensors(p)[0]
    return read(case.path)


@each_case
def test_imported_model_answers_as_the_peer_does(case):
    images, wanted = case.expected()
    weights = case.read()
    assert (weights.layout, weights.arguments["head"]) == (case.layout, case.head)
    answer = np.asarray(build_model(weights)(images))
    np.testing.assert_allclose(answer, wanted, atol=CLOSE)


@each_case
def test_reference_in_numpy_answers_as_the_peer_does(case):
    images, wanted = case.expected()
    answer = reference_outputs(arrays_of(case), case.read(), images)
    np.testing.assert_allclose(answer, wanted, atol=CLOSE)


@each_case
def test_every_array_of_a_file_is_used_or_left_out_with_a_reason(case):
    weights = case.read()
    accounted = {
        name for names in weights.used for name in names.split(", ")
    } | weights.left_out.keys()
    assert accounted == arrays_of(case).keys()
    assert not weights.used.keys() & weights.left_out.keys()


def test_what_is_left_out_is_what_the_image_model_does_not_compute_with():
    assert not NAMED["bv_map_scan"].read().left_out
    tower = NAMED["bv_map_tower"].read().left_out
    assert set(tower) == {"params/t", "params/b", "params/txt/head/kernel"}
    towers = NAMED["hf_siglip_towers"].read().left_out
    assert all(name.startswith(("text_model.", "logit_")) for name in towers)
    classifier = NAMED["hf_siglip_classifier"].read().left_out
    assert all(name.startswith("vision_model.head.") for name in classifier)


def test_biases_that_a_source_lacks_are_zero_and_reported():
    weights = NAMED["timm_no_qkv_bias"].read()
    assert len(weights.filled) == 6  # Query, key and value of two blocks.
    assert all(not weights.variables[path].any() for path in weights.filled)


@pytest.mark.parametrize("name", ["timm_token", "timm_gap", "timm_bfloat16"])
def test_timm_gelu_is_of_erf_and_can_be_overridden(name):
    assert NAMED[name].read().arguments["approximate_gelu"] is False
    weights = NAMED[name].read(approximate_gelu=True)
    assert weights.arguments["approximate_gelu"] is True


def test_hugging_face_epsilon_and_gelu_come_from_the_config_file():
    weights = NAMED["hf_vit"].read()
    assert weights.arguments["norm_epsilon"] == 1e-12
    assert weights.arguments["approximate_gelu"] is False
    assert NAMED["hf_siglip_vision"].read().arguments["approximate_gelu"] is True


def test_map_head_can_be_left_out_and_class_token_become_a_register():
    weights = NAMED["hf_siglip_vision"].read(head="gap")
    assert weights.arguments["head"] == "gap"
    assert all("requested head" in why for why in weights.left_out.values())
    weights = NAMED["timm_options"].read(head="gap", ignore="head.*")
    assert weights.arguments["register_tokens"] == 1 + 3
    images, _ = NAMED["timm_options"].expected()
    ours = np.asarray(build_model(weights)(images))
    theirs = reference_outputs(arrays_of(NAMED["timm_options"]), weights, images)
    np.testing.assert_allclose(ours, theirs, atol=CLOSE)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("augreg_pre_logits", "(head|pre_logits)/.*"),
        ("bv_token", "head/.*"),
        ("timm_token", r"head\..*"),
        ("hf_vit", "classifier.*"),
        ("hf_vit_pooler", "pooler.*"),
    ],
)
@pytest.mark.parametrize("head", ["token", "gap"])
def test_reference_computes_without_what_was_left_out(name, pattern, head):
    case = NAMED[name]
    weights = case.read(head=head, ignore=pattern)
    images, _ = case.expected()
    answer = reference_outputs(arrays_of(case), weights, images)
    assert answer.shape == (2, 8)  # Features: no classifier, no layer before it.
    np.testing.assert_allclose(
        np.asarray(build_model(weights)(images)), answer, atol=CLOSE
    )


@pytest.mark.parametrize("name", ["bv_token", "timm_token", "hf_vit"])
def test_class_tokens_classifier_is_not_put_on_the_average(name):
    with pytest.raises(ValueError, match="classifier was trained on its class token"):
        NAMED[name].read(head="gap")


def test_hugging_face_vit_without_its_configuration_computes_erfs_gelu(tmp_path):
    case = NAMED["hf_vit"]
    path = shutil.copy(case.path, tmp_path)  # Without its config.json.
    weights = read_weights(path, heads=2)
    assert weights.arguments["approximate_gelu"] is False
    images, wanted = case.expected()
    answer = np.asarray(build_model(weights)(images))
    np.testing.assert_allclose(answer, wanted, atol=CLOSE)
