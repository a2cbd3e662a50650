"""config.json of timm's folders: the registered model and its arguments."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.applications.published_folders import CLASS_NAMES, random_weights
from vit_scaling.applications.formats.timm_export import write_timm_folder


def test_the_arguments_replace_all_sizes_of_the_registered_model():
    config = write_timm_folder(random_weights(head="map")).arguments
    arguments = config["model_args"]
    sizes = {"patch_size": 2, "embed_dim": 8, "depth": 2, "num_heads": 2}
    assert {name: arguments[name] for name in sizes} == sizes
    assert arguments["mlp_ratio"] * 8 == 12 and arguments["act_layer"] == "gelu_tanh"
    assert config["label_names"] == list(CLASS_NAMES)
    assert config["num_classes"] == config["pretrained_cfg"]["num_classes"] == 3
    assert "num_classes" not in arguments  # timm's `create_model` passes it.


def test_the_preprocessing_is_that_of_the_record():
    known = write_timm_folder(random_weights(head="gap")).arguments["pretrained_cfg"]
    assert known["input_size"] == [3, 4, 4]
    assert (known["crop_pct"], known["crop_mode"]) == (4 / 5, "center")
    assert known["interpolation"] == "bicubic"


def test_an_epsilon_that_no_configuration_can_state_is_rejected():
    with pytest.raises(ValueError, match=r"1e-12\. Set --norm_epsilon=1e-6"):
        write_timm_folder(random_weights(head="token", norm_epsilon=1e-12))
