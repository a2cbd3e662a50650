"""`sweep`: a study's gin file is costed and its commands are printed."""
# SPDX-License-Identifier: Apache-2.0

import json

from vit_scaling.commands.sweep import main

PATTERNS = "DATA_PATTERNS = [\"TRAIN_PATTERN = 'a'\", \"EVAL_PATTERN = 'b'\"]"


def test_a_dry_run_costs_and_names_every_command(tmp_path, capsys):
    flags = ["--study=studies/digits.gin", "--dry_run", f"--output_dir={tmp_path}"]
    assert main([*flags, f"--gin_param={PATTERNS}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"] == len(found["commands"]) == 2 * 2 * 3
    assert found["training_flops"] > 0 and found["estimated_hours"] > 0
    assert all("-m vit_scaling.train" in text for text in found["commands"])
    assert sum("--mode=branch_cooldown" in text for text in found["commands"]) == 8
    assert not list(tmp_path.iterdir())


def test_a_misspelt_binding_is_refused(tmp_path, capsys):
    flags = ["--study=studies/digits.gin", "--dry_run", f"--output_dir={tmp_path}"]
    wrong = "--gin_param=sweep.duration = (1, 2)"
    assert main([*flags, f"--gin_param={PATTERNS}", wrong]) == 1
    assert "duration" in capsys.readouterr().err
