"""The command writes another project's layout, and says how it is loaded."""
# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from tests.applications.cases import NAMED
from vit_scaling.commands import export_weights, import_weights

# Keras turns its variables into arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def test_export_command_goes_from_layout_to_layout(tmp_path, capsys):
    output = str(tmp_path / "m.safetensors")
    flags = [f"--source={NAMED['bv_map_scan'].path}", f"--output={output}"]
    assert export_weights.main(flags) == 0
    assert "global_pool='map'" in capsys.readouterr().out
    assert (
        import_weights.main([f"--source={output}", f"--output={tmp_path}/m.npz"]) == 0
    )


def test_arguments_of_timms_class_are_printed_as_json(tmp_path, capsys):
    flags = [f"--source={NAMED['bv_map'].path}", f"--output={tmp_path}/m.safetensors"]
    assert export_weights.main([*flags, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["layout"] == "timm"
    assert report["arguments"]["global_pool"] == "map"


def test_other_endings_are_rejected(tmp_path, capsys):
    flags = [f"--source={NAMED['bv_map'].path}", f"--output={tmp_path}/m.pt"]
    assert export_weights.main(flags) == 1
    assert "must end in '.safetensors'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_assumptions_in_reading_are_shown(tmp_path, capsys):
    source = NAMED["bv_gap_sincos2d"].path
    flags = [f"--source={source}", f"--output={tmp_path}/m.npz"]
    assert export_weights.main(flags) == 0
    assert "assumed: images of 224 pixels" in capsys.readouterr().out
