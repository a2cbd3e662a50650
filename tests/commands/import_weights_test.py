"""The command imports, resizes and reports; on an error it writes nothing."""
# SPDX-License-Identifier: Apache-2.0

import json

import keras
import numpy as np
import pytest

from tests.applications.cases import NAMED
from vit_scaling.commands import import_weights

# Keras turns its variables into arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


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
    printed = capsys.readouterr().out
    assert (
        "from the layout of timm" in printed and "outputs on 2 images differ" in printed
    )
    assert "not compared: kind of head, heads" in printed
    assert keras.saving.load_model(output).input_shape == (None, 6, 6, 3)


def test_size_of_a_model_is_rejected_with_npz(tmp_path, capsys):
    flags = [f"--source={NAMED['bv_map'].path}", f"--output={tmp_path}/m.npz"]
    assert import_weights.main([*flags, "--image_size=6"]) == 1
    assert "`image_size` requires an output of '.keras'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_command_fails_in_one_line_and_writes_nothing(tmp_path, capsys):
    flags = [f"--source={NAMED['bv_map'].path}", "--shape=B/16", "--json"]
    assert import_weights.main([*flags, f"--output={tmp_path}/m.keras"]) == 1
    out, err = capsys.readouterr()
    assert not out and "embedding/kernel" in err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_sizes_are_given_as_height_x_width(tmp_path, capsys):
    case, output = NAMED["hf_not_square"], str(tmp_path / "m.keras")
    flags = [f"--source={case.path}", f"--output={output}", "--json"]
    assert import_weights.main([*flags, "--image_size=4x16"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"]["image_size"] == [2, 8]
    assert keras.saving.load_model(output).input_shape == (None, 4, 16, 3)
    # Stated by the caller, the size has precedence; one that can't be is an error.
    assert import_weights.main([*flags, "--source_image_size=8x2"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["image_size"] == [8, 2]
    assert import_weights.main([*flags, "--source_image_size=4x8"]) != 0
    for wrong in ("4x", "axb", "1x2x3", "0x4"):
        with pytest.raises(SystemExit):
            import_weights.main([*flags, f"--image_size={wrong}"])
