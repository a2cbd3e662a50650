"""`vit-scaling weights list` prints the table, and nearest names."""
# SPDX-License-Identifier: Apache-2.0

import json

from vit_scaling.commands import list_weights


def test_table_and_sources_are_printed(capsys):
    assert list_weights.main(["mae-*"]) == 0
    table = capsys.readouterr().out
    assert "mae-b16" in table and "CC-BY-NC-4.0" in table and "hf://" not in table
    assert list_weights.main(["mae-b16", "--sources"]) == 0
    sources = capsys.readouterr().out
    assert "mae-b16: hf://timm/vit_base_patch16_224.mae" in sources
    assert "top1: facebookresearch/mae@" in sources


def test_json_holds_every_field(capsys):
    assert list_weights.main(["mae-b16", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["weights"]
    assert row["top1"] == 83.6 and row["evaluation"] == "fine-tuned"


def test_pattern_without_a_match_is_an_error(capsys):
    assert list_weights.main(["siglop-b16-224"]) == 1
    assert "Did you mean 'siglip-b16-224'" in capsys.readouterr().err
