"""The config.json and metadata of a file are used, and named if damaged."""
# SPDX-License-Identifier: Apache-2.0

import shutil

import pytest

from tests.applications.cases import NAMED
from vit_scaling.applications.formats import native_npz
from vit_scaling.applications.formats.sidecar_files import apply_metadata, read_config
from vit_scaling.applications.formats.vit_weights import ReadOptions
from vit_scaling.applications.weights import read_weights


def test_configuration_in_the_folder_is_read():
    assert read_config(NAMED["hf_vit"].path)["num_attention_heads"] == 2
    assert read_config(NAMED["timm_map"].path) == {}


@pytest.mark.parametrize("content", [b'{"num_attention_heads": 2', b"\xff\xfe"])
def test_damaged_configuration_is_named_with_what_to_do(content, tmp_path):
    path = shutil.copy(NAMED["hf_vit"].path, tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json' is damaged.*--heads"):
        read_weights(path)


def test_own_notes_fill_what_the_caller_leaves_open():
    arguments = NAMED["timm_options"].read().arguments
    text = native_npz.arguments_as_text(arguments)
    request, config = apply_metadata(ReadOptions(head="gap"), text)
    assert request.head == "gap"  # The caller's wish stays.
    assert request.approximate_gelu is arguments["approximate_gelu"]
    assert config["model_args"] == {"num_heads": arguments["shape"].heads}
