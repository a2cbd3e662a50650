"""timm's config.json decides what no array shows; without it that is said."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.applications.formats.timm_test import held, read
from vit_scaling.applications.formats import timm
from vit_scaling.applications.formats.vit_weights import ReadOptions


@pytest.mark.parametrize(
    ("architecture", "tanh"),
    [
        ("vit_base_patch16_siglip_224", False),
        ("vit_base_patch16_siglip_512.v2_webli", False),
        ("vit_base_patch32_siglip_256", True),
        ("vit_large_patch16_siglip_384", False),
        ("vit_large_patch16_siglip_512", True),
        ("vit_so400m_patch14_siglip_384", False),
        ("vit_so400m_patch16_siglip_gap_512", True),
        ("vit_giantopt_patch16_siglip_384", True),
        ("vit_so150m_patch16_reg4_map_256", False),
    ],
)
def test_architecture_decides_gelu_as_timm_does(architecture, tanh):
    weights = read(held("timm_map"), {"architecture": architecture})
    assert weights.arguments["approximate_gelu"] is tanh
    assert not weights.assumed


def test_arguments_take_precedence_over_the_architecture():
    named = {"architecture": "vit_base_patch16_siglip_224"}
    config = {**named, "model_args": {"act_layer": "gelu_tanh"}}
    assert read(held("timm_map"), config).arguments["approximate_gelu"] is True


def assumed(name, **options):
    options = ReadOptions(heads=2, source_image_size=4, **options)
    return "\n".join(timm.read_timm(held(name), options, {}).assumed)


@pytest.mark.parametrize(
    ("name", "gelu", "tanh"),
    [("timm_map", "GELU by tanh", True), ("timm_gap", "GELU by erf", False)],
)
def test_facts_that_only_a_configuration_states_are_reported_as_assumed(
    name, gelu, tanh
):
    weights = read(held(name))
    assert weights.arguments["approximate_gelu"] is tanh
    for what in (gelu, "epsilon 1e-6", "plain blocks"):
        assert what in "\n".join(weights.assumed)
    assert "head 'token'" not in assumed(name)
    assert not read(held(name), {"architecture": "vit_base_patch16_224"}).assumed


def test_what_the_caller_specifies_is_not_assumed():
    assert "head 'token'" in assumed("timm_token")
    facts = assumed(
        "timm_token", head="token", approximate_gelu=False, norm_epsilon=1e-6
    )
    assert facts.startswith("plain blocks") and "\n" not in facts


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": "vit_base_patch16_rpn_224.sw_in1k"}, "norms after"),
        ({"architecture": "test_vit3"}, "pool_include_prefix"),
        ({"model_args": {"pool_include_prefix": True}}, "pool_include_prefix=True"),
        ({"model_args": {"block_fn": "ResPostBlock"}}, "block_fn='ResPostBlock'"),
        ({"model_args": {"norm_layer": "rmsnorm"}}, "norm_layer='rmsnorm'"),
        ({"model_args": {"global_pool": "avgmax"}}, "global_pool='avgmax'"),
        ({"global_pool": "max"}, "global_pool='max'"),
    ],
    ids=str,
)
def test_models_of_the_same_arrays_that_compute_differently_are_rejected(
    config, message
):
    config = {"architecture": "vit_base_patch16_224", **config}
    with pytest.raises(ValueError, match=message):
        read(held("timm_gap_fc_norm"), config)


def test_arguments_that_the_arrays_show_are_no_reason_to_refuse():
    given = {"img_size": 4, "reg_tokens": 3, "init_values": 1e-3, "drop_path_rate": 0.1}
    config = {"architecture": "vit_tiny", "model_args": {**given, "block_fn": None}}
    assert read(held("timm_registers_gap"), config).arguments["register_tokens"] == 3


def test_average_among_the_arguments_is_the_head():
    config = {"architecture": "vit_tiny", "model_args": {"global_pool": "avg"}}
    assert read(held("timm_token"), config).arguments["head"] == "gap"


def test_heads_among_the_arguments_count_and_are_not_contradicted():
    config = {"architecture": "vit_tiny", "model_args": {"num_heads": 4}}
    found = timm.read_timm(held("timm_token"), ReadOptions(), config)
    assert found.shape.heads == 4
    with pytest.raises(
        ValueError, match=r"is 2, but the file or its config\.json has 4"
    ):
        read(held("timm_token"), config)


def test_other_functions_than_gelu_are_rejected_unless_chosen():
    config = {"architecture": "vit_base_patch32_clip_quickgelu_224"}
    with pytest.raises(ValueError, match="'quick_gelu'"):
        read(held("timm_token"), config)
    options = ReadOptions(heads=2, approximate_gelu=False)
    weights = timm.read_timm(held("timm_token"), options, config)
    assert weights.arguments["approximate_gelu"] is False
