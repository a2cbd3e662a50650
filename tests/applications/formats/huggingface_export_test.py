"""config.json of transformers' classes, for our heads, sizes and class names."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.applications.published_folders import random_weights
from vit_scaling.applications.formats.huggingface_export import (
    is_supported,
    write_huggingface,
)


def test_a_token_head_is_transformers_vit():
    exported = write_huggingface(random_weights(head="token", norm_epsilon=1e-5))
    config = exported.arguments
    assert config["architectures"] == ["ViTForImageClassification"]
    assert (config["hidden_size"], config["num_attention_heads"]) == (8, 2)
    assert (config["image_size"], config["patch_size"]) == (4, 2)
    assert config["layer_norm_eps"] == 1e-5
    assert config["hidden_act"] == "gelu_pytorch_tanh"
    assert config["id2label"] == {"0": "ant", "1": "bee", "2": "cat"}
    assert exported.arrays["vit.embeddings.position_embeddings"].shape == (1, 5, 8)
    assert not exported.arrays["vit.embeddings.position_embeddings"][0, 0].any()
    assert exported.arrays["classifier.weight"].shape == (3, 8)


def test_an_average_is_siglips_classifier_and_images_may_be_oblong():
    exported = write_huggingface(random_weights(head="gap", image_size=(4, 6)))
    config = exported.arguments
    assert config["architectures"] == ["SiglipForImageClassification"]
    assert config["vision_config"]["image_size"] == [4, 6]
    assert not config["vision_config"]["vision_use_head"]


def test_a_map_head_has_no_classifier_in_transformers():
    assert not is_supported(random_weights(head="map"))
    features = random_weights(head="map", classes=None)
    assert is_supported(features)
    config = write_huggingface(features).arguments
    assert config["architectures"] == ["SiglipVisionModel"]
    assert config["vision_use_head"] and "id2label" not in config


def test_parts_that_transformers_lacks_are_named():
    with pytest.raises(ValueError, match=r"no layer_scale=0\.1\. Write timm's folder"):
        write_huggingface(random_weights(head="token", layer_scale=0.1))
