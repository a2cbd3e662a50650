"""transformers' configurations: what is read, and what is rejected by its part."""
# SPDX-License-Identifier: Apache-2.0

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from tests.applications.formats.huggingface_test import held
from vit_scaling.applications.formats import huggingface
from vit_scaling.applications.formats.vit_weights import ReadOptions
from vit_scaling.applications.weights import read_weights


def read(name, **changes):
    arrays, config = held(name)
    config = {**config, **changes}
    return huggingface.read_huggingface(arrays, ReadOptions(), config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_swiglu_ffn": True}, "SwiGLU"),
        ({"is_decoder": True}, "a decoder"),
        ({"rope_theta": 100.0}, "rope_theta=100.0, which this package does not know"),
        ({"quantization_config": {"bits": 8}}, "quantization_config="),
        ({"hidden_size": 16}, "hidden_size=16, but the arrays have 8"),
        ({"num_hidden_layers": 3}, "num_hidden_layers=3, but the arrays have 2"),
        ({"patch_size": 16}, "patch_size=16, but the arrays have 2"),
        ({"image_size": 8}, "do not fit"),
    ],
    ids=str,
)
def test_a_configuration_that_computes_something_else_is_rejected(changes, message):
    with pytest.raises(ValueError, match=message):
        read("hf_vit", **changes)


def test_the_pooler_must_compute_tanh_if_it_is_used():
    arrays, config = held("hf_vit_pooler")
    config["pooler_act"] = "relu"
    with pytest.raises(ValueError, match=r"pooler_act='relu'.*computes tanh"):
        huggingface.read_huggingface(arrays, ReadOptions(), config)
    options = ReadOptions(ignore="pooler.*")
    assert huggingface.read_huggingface(arrays, options, config)


@pytest.mark.parametrize(
    ("model_type", "part"),
    [
        ("dinov3_vit", "RoPE"),
        ("siglip2_vision_model", "NaFlex"),
        ("beit", "relative position biases"),
        ("data2vec-vision", "relative position biases"),
        ("swin", "attention in windows"),
        ("a_new_model", "not known to be a plain ViT"),
    ],
)
@pytest.mark.parametrize("arrays", [{"embeddings.patch_embeddings.weight"}, None])
def test_other_models_are_rejected_by_the_part_that_differs(
    model_type, part, arrays, tmp_path
):
    """Even if no array of theirs is known, and never with advice that can't work."""
    folder = tmp_path / "model"
    folder.mkdir()
    if arrays is None:
        found, config = held("hf_vit")
    else:
        found, config = {name: np.ones((2, 2), "f") for name in arrays}, {}
    safetensors.numpy.save_file(found, str(folder / "model.safetensors"))
    config |= {"model_type": model_type, "hidden_act": "quick_gelu"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=part) as error:
        read_weights(str(folder))
    assert "put" not in str(error.value)


def test_the_configured_image_size_decides_the_grid_of_positions():
    weights = read("hf_not_square")  # 2 x 8 pixels: 4 patches, a square number.
    assert weights.arguments["image_size"] == (2, 8) and not weights.assumed


def test_a_folder_is_read_with_its_configuration(tmp_path):
    from tests.applications.cases import FOLDER

    folder = shutil.copytree(f"{FOLDER}/hf_dinov2_registers", tmp_path / "model")
    weights = read_weights(str(folder))
    assert weights.arguments["register_tokens"] == 4
    assert weights.arguments["norm_epsilon"] == 1e-6


def test_classifiers_of_more_than_one_pooled_vector_are_named():
    arrays, config = held("hf_dinov2")
    arrays |= {
        "classifier.weight": np.ones((3, 16), "f"),
        "classifier.bias": np.ones(3),
    }
    with pytest.raises(ValueError, match="class token next to the average"):
        huggingface.read_huggingface(arrays, ReadOptions(), config)
    options = ReadOptions(ignore="classifier.*")
    assert huggingface.read_huggingface(arrays, options, config)
    arrays, config = held("hf_deit")
    for name in ("cls_classifier", "distillation_classifier"):
        arrays |= {f"{name}.weight": np.ones((3, 8), "f"), f"{name}.bias": np.ones(3)}
    with pytest.raises(ValueError, match="averages two classifiers"):
        huggingface.read_huggingface(arrays, ReadOptions(), config)
    options = ReadOptions(ignore=".*classifier.*")
    assert huggingface.read_huggingface(arrays, options, config)
