"""timm's files tell their head, and ours tell timm how to be built."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.applications.cases import NAMED
from vit_scaling import array_files
from vit_scaling.applications.formats import timm
from vit_scaling.applications.formats.vit_weights import ReadOptions
from vit_scaling.applications.parity import measure_parity
from vit_scaling.applications.weights import build_model, export_weights, read_weights
from vit_scaling.modeling.vit import vit

MARKER = "patch_embed.proj.weight"


def held(name):
    return array_files.read_safetensors(NAMED[name].path)[0]


def read(found, config=None):
    request = ReadOptions(heads=2, source_image_size=4)
    return timm.read_timm(found, request, config or {})


@pytest.mark.parametrize("prefix", timm.FORMAT.prefixes)
def test_model_is_known_behind_wrappers_prefixes(prefix):
    assert timm.FORMAT.find_prefix({prefix + MARKER}) == prefix
    assert timm.FORMAT.find_prefix({"elsewhere." + MARKER}) is None


def test_head_is_read_off_the_arrays_and_the_hubs_configuration():
    assert read(held("timm_token")).arguments["head"] == "token"
    assert read(held("timm_gap")).arguments["head"] == "gap"
    assert read(held("timm_map")).arguments["head"] == "map"
    averaged = read(held("timm_token"), {"global_pool": "avg"})
    assert averaged.arguments["head"] == "gap"
    assert averaged.arguments["register_tokens"] == 1  # The class token.


def test_norm_of_the_average_is_the_last_norm():
    found = held("timm_gap_fc_norm")
    weights = read(found)
    assert weights.arguments["norm_after_pooling"]
    np.testing.assert_array_equal(
        weights.variables["encoder_norm/gamma"], found["fc_norm.weight"]
    )
    assert weights.used["fc_norm.weight"] == "encoder_norm/gamma"
    assert not read(held("timm_gap")).arguments["norm_after_pooling"]


def test_norm_of_the_average_tells_that_a_class_token_is_not_read():
    found = held("timm_token")
    for part in ("weight", "bias"):
        found[f"fc_norm.{part}"] = found.pop(f"norm.{part}")
    arguments = read(found).arguments
    assert arguments["head"] == "gap" and arguments["register_tokens"] == 1


@pytest.mark.parametrize("name", ["timm_map", "timm_gap_fc_norm", "timm_options"])
def test_arrays_go_out_as_they_came_in_with_the_arguments_of_timms_class(name):
    exported = timm.write_timm(NAMED[name].read())
    written, arguments = exported.arrays, exported.arguments
    theirs = held(name)
    assert written.keys() == theirs.keys()
    for key in theirs.keys() - {"cls_token", "reg_token", "pos_embed"}:
        np.testing.assert_array_equal(written[key], theirs[key])
    assert arguments["fc_norm"] == (name == "timm_gap_fc_norm")
    assert arguments["class_token"] == (name == "timm_options")
    assert arguments["mlp_ratio"] * arguments["embed_dim"] == 12


def test_epsilon_goes_into_the_arguments_of_timms_class():
    options = ReadOptions(heads=2, norm_epsilon=1e-5)
    weights = timm.read_timm(held("timm_token"), options, {})
    arguments = timm.write_timm(weights).arguments
    assert arguments["norm_layer"] == "functools.partial(torch.nn.LayerNorm, eps=1e-05)"
    assert "norm_layer" not in timm.write_timm(read(held("timm_token"))).arguments


def test_norm_before_the_blocks_is_written_and_read(tmp_path):
    model = vit("mu/16", "token", image_size=32, classes=3, norm_before_blocks=True)
    norm = model.get_layer("embedding_norm")
    norm.gamma.assign(np.linspace(0.5, 1.5, 32))
    model.get_layer("head").kernel.assign(np.eye(32)[:, :3])
    path = str(tmp_path / "model.safetensors")
    report = export_weights(model, path)
    assert report["arguments"]["pre_norm"]
    arrays, _ = array_files.read_safetensors(path)
    assert "patch_embed.proj.bias" not in arrays
    weights = read_weights(path)
    assert weights.arguments["norm_before_blocks"]
    assert "patch_embedding/bias" in weights.filled
    assert measure_parity(path, weights)["within_tolerance"]
    images = np.ones((1, 32, 32, 3))
    np.testing.assert_allclose(build_model(weights)(images), model(images), atol=1e-6)
    model.get_layer("patch_embedding").bias.assign(np.ones(32))
    with pytest.raises(ValueError, match="has no bias of the patch embedding"):
        export_weights(model, path)
