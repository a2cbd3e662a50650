"""What lies beside the arrays is believed, and named when it is damaged."""
# SPDX-License-Identifier: Apache-2.0

import shutil

import pytest

from tests.applications.cases import NAMED
from vit_scaling.applications.formats import own
from vit_scaling.applications.formats.beside import config_beside, with_own_notes
from vit_scaling.applications.formats.source import Request
from vit_scaling.applications.weights import read_weights


def test_configuration_in_the_folder_is_read():
    assert config_beside(NAMED["hf_vit"].path)["num_attention_heads"] == 2
    assert config_beside(NAMED["timm_map"].path) == {}


@pytest.mark.parametrize("content", [b'{"num_attention_heads": 2', b"\xff\xfe"])
def test_damaged_configuration_is_named_with_what_to_do(content, tmp_path):
    path = shutil.copy(NAMED["hf_vit"].path, tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json' is no whole JSON.*--heads"):
        read_weights(path)


def test_own_notes_fill_what_the_caller_leaves_open():
    arguments = NAMED["timm_options"].read().arguments
    text = own.arguments_as_text(arguments)
    request, config = with_own_notes(Request(head="gap"), text)
    assert request.head == "gap"  # The caller's wish stays.
    assert request.approximate_gelu is arguments["approximate_gelu"]
    assert config["model_args"] == {"num_heads": arguments["shape"].heads}
