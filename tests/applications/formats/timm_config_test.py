"""timm's config.json decides what no array shows; without it that is said."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.applications.formats.timm_test import held, read
from vit_scaling.applications.formats import timm, timm_config
from vit_scaling.applications.formats.vit_weights import ReadOptions, ViTWeights
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.variables import vit_variables


def named(architecture, **arguments):
    """Return a configuration whose arguments fit the tiny files."""
    return {"architecture": architecture, "model_args": {"num_heads": 2, **arguments}}


@pytest.mark.parametrize(
    ("architecture", "width", "heads"),
    [
        ("vit_base_patch16_224", 24, 12),
        ("vit_base_patch16_gap_224.in1k", 32, 16),  # Of the same width in timm.
        ("vit_giant_patch16_radio_v3", 48, 24),
        ("vit_giant_patch16_gap_224", 48, 16),
    ],
)
def test_an_architectures_heads_come_from_timms_registry(architecture, width, heads):
    shape = ViTShape(patch=2, width=width, depth=1, mlp_width=12, heads=heads)
    arguments = {"shape": shape, "head": "gap", "image_size": 4, "classes": 3}
    variables = {
        path: np.zeros(size, np.float32)
        for path, size in vit_variables(**arguments).items()
    }
    arrays = timm.write_timm(ViTWeights("", arguments, variables)).arrays
    with pytest.raises(ValueError, match=r"Give `heads` \(--heads"):
        timm.read_timm(arrays, ReadOptions(), {})
    config = {"architecture": architecture, "global_pool": "avg"}
    weights = timm.read_timm(arrays, ReadOptions(source_image_size=4), config)
    assert weights.shape == shape and not weights.assumed
    with pytest.raises(ValueError, match=f"`heads` .* is 2, but .* has {heads}"):
        timm.read_timm(arrays, ReadOptions(heads=2), config)


def test_the_configured_image_size_decides_the_grid_of_positions():
    size = {"input_size": [3, 2, 8]}  # 4 patches of 2 pixels, a square number.
    named_model = named("vit_base_patch16_224")
    sized = named("vit_base_patch16_224", img_size=[2, 8])
    for config in (size | named_model, {"pretrained_cfg": size} | named_model, sized):
        weights = timm.read_timm(held("timm_gap"), ReadOptions(), config)
        assert weights.arguments["image_size"] == (2, 8) and not weights.assumed


def test_every_row_of_the_table_has_what_a_plain_vit_needs():
    for name, model in timm_config.timm_models().items():
        known = model.gelu in ("gelu", "gelu_tanh", "quick_gelu")
        assert (known and model.heads and model.epsilon) or model.differs, name


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
    weights = read(held("timm_map"), named(architecture, img_size=4))
    assert weights.arguments["approximate_gelu"] is tanh
    assert not weights.assumed


def test_arguments_take_precedence_over_the_architecture():
    config = named("vit_base_patch16_siglip_224", act_layer="gelu_tanh")
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
    assert not read(held(name), named("vit_base_patch16_224", img_size=4)).assumed


def test_what_the_caller_specifies_is_not_assumed():
    assert "head 'token'" in assumed("timm_token")
    facts = assumed(
        "timm_token", head="token", approximate_gelu=False, norm_epsilon=1e-6
    )
    assert facts.startswith("plain blocks") and "\n" not in facts


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": "vit_base_patch16_rpn_224.sw_in1k"}, "ResPostBlock"),
        ({"architecture": "test_vit3"}, "pool_include_prefix"),
        ({"architecture": "eva02_base_patch14_224"}, "RoPE"),
        ({"architecture": "vit_base_patch16_clip_quickgelu_224"}, "'quick_gelu'"),
        ({"architecture": "vit_giant_patch14_dinov2"}, "SwiGLU"),
        ({"architecture": "deit_base_distilled_patch16_224"}, "averaged classifiers"),
        ({"attention_bias": True}, "attention_bias=True, which this package does not"),
        ({"pretrained_cfg": {"rope": 1}}, "rope=1, which this package does not know"),
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
    config = named("vit_tiny", act_layer="quick_gelu")
    with pytest.raises(ValueError, match="'quick_gelu'"):
        read(held("timm_token"), config)
    options = ReadOptions(heads=2, approximate_gelu=False)
    weights = timm.read_timm(held("timm_token"), options, config)
    assert weights.arguments["approximate_gelu"] is False
