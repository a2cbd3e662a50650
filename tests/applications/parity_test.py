"""An import reports what it did, and writes nothing that answers otherwise."""
# SPDX-License-Identifier: Apache-2.0

import json

import keras
import numpy as np
import pytest

from tests.applications.cases import CASES, NAMED
from vit_scaling.applications import parity as module
from vit_scaling.applications.formats import timm
from vit_scaling.commands import export_weights, import_weights

# Keras turns its variables into arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


@pytest.mark.parametrize(
    "name", ["augreg", "bv_map", "timm_options", "hf_siglip_vision"]
)
def test_outputs_are_within_the_tolerance_of_the_reference(name):
    report = module.parity(NAMED[name].path, NAMED[name].read(), images=3)
    assert report["within_tolerance"] and report["images"] == 3
    assert 0 < report["largest_difference"] < 1e-5 < report["largest_output"]


def test_a_wrong_table_is_found_out_and_nothing_is_written(tmp_path, monkeypatch):
    def swapped(row):  # Query for key: shapes fit, outputs don't.
        if row.path.startswith("block") and row.part == (0, 3):
            return timm.Row(row.source, row.path, row.form, (1, 3))
        if row.path.startswith("block") and row.part == (1, 3):
            return timm.Row(row.source, row.path, row.form, (0, 3))
        return row

    monkeypatch.setattr(timm, "TABLE", tuple(map(swapped, timm.TABLE)))
    biased = NAMED["timm_options"]  # Norms of queries and keys differ.
    output = tmp_path / "x.keras"
    with pytest.raises(ValueError, match="outputs differ from the source's"):
        module.import_weights(biased.path, str(output))
    assert not list(tmp_path.iterdir())


def test_command_imports_and_reports_every_array(tmp_path, capsys):
    case, output = NAMED["bv_map"], str(tmp_path / "m.keras")
    flags = [f"--source={case.path}", f"--output={output}", "--head=map", "--json"]
    assert import_weights.main(flags) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["layout"] == "big_vision"
    assert report["parity"]["within_tolerance"]
    assert "opt/state/step" in report["left_out"]
    images, wanted = case.expected()
    model = keras.saving.load_model(output)
    np.testing.assert_allclose(np.asarray(model(images)), wanted, atol=1e-5)
    variables = sum(v.shape.num_elements() for v in model.variables)
    assert report["parameters"] == variables


def test_command_resizes_and_tells_people(tmp_path, capsys):
    case, output = NAMED["timm_map"], str(tmp_path / "m.keras")
    flags = [f"--source={case.path}", f"--output={output}", "--heads=2"]
    assert import_weights.main([*flags, "--image_size=6", "--gelu=erf"]) == 0
    told = capsys.readouterr().out
    assert "from the layout of timm" in told and "outputs on 2 images differ" in told
    assert keras.saving.load_model(output).input_shape == (None, 6, 6, 3)


def test_command_fails_in_one_line_and_writes_nothing(tmp_path, capsys):
    flags = [f"--source={NAMED['bv_map'].path}", "--shape=B/16", "--json"]
    assert import_weights.main([*flags, f"--output={tmp_path}/m.keras"]) == 1
    out, err = capsys.readouterr()
    assert not out and "embedding/kernel" in err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_export_command_goes_from_layout_to_layout(tmp_path, capsys):
    output = str(tmp_path / "m.safetensors")
    flags = [f"--source={NAMED['bv_map_scan'].path}", f"--output={output}"]
    assert export_weights.main(flags) == 0
    assert "global_pool='map'" in capsys.readouterr().out
    assert (
        import_weights.main([f"--source={output}", f"--output={tmp_path}/m.npz"]) == 0
    )


def test_reference_exists_for_every_foreign_layout():
    assert {case.layout for case in CASES} == set(module.FORWARDS)
    own = NAMED["bv_map"].read()
    with pytest.raises(ValueError, match="no reference for layout 'vit_scaling'"):
        module.reference_outputs({}, type(own)("vit_scaling", {}, {}), np.zeros(1))
