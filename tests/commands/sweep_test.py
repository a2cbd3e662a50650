"""`sweep`: a study's gin file is costed and its commands are printed."""
# SPDX-License-Identifier: Apache-2.0

import json
import shlex

import gin
import pytest

from vit_scaling import configurables, gin_files
from vit_scaling.commands.sweep import main

PATTERNS = "DATA_PATTERNS = [\"TRAIN_PATTERN = 'a'\", \"EVAL_PATTERN = 'b'\"]"


def test_a_dry_run_costs_and_names_every_command(tmp_path, capsys):
    flags = ["--study=studies/digits.gin", "--dry_run", f"--output_dir={tmp_path}"]
    assert main([*flags, f"--gin_param={PATTERNS}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"] == 2 * 2 * 3
    assert len(found["commands"]) == 2 * 2 * 2  # The branches of a run share one.
    assert found["training_flops"] > 0 and found["estimated_hours"] > 0
    assert all("-m vit_scaling.train" in text for text in found["commands"])
    assert sum("--mode=branch_cooldown" in text for text in found["commands"]) == 4
    assert not list(tmp_path.iterdir())


STUDIES = sorted(
    str(path.relative_to(gin_files.root()))
    for path in (gin_files.root() / "studies").rglob("*.gin")
    if "sweep.name" in path.read_text()
)
SETS = ("TRAIN", "EVAL", "SHOTS", "PROBE")


@pytest.mark.parametrize("study", STUDIES)
def test_every_run_of_every_study_binds_what_runs_read(study, tmp_path, capsys):
    text = (gin_files.root() / study).read_text()
    uses_grid = "grid.gin" in text  # Few-shot transfer and upstream accuracy.
    data = [f"{name}_PATTERN = 'x'" for name in (SETS if uses_grid else SETS[:2])]
    name = "DATA_PATTERNS" if "DATA_PATTERNS" in text else "DATA"
    flags = [f"--study={study}", "--dry_run", f"--output_dir={tmp_path}", "--json"]
    assert main([*flags, f"--gin_param={name} = {data!r}"]) == 0
    commands = json.loads(capsys.readouterr().out)["commands"]
    for words in map(shlex.split, commands):
        gin.clear_config()
        given = [word.partition("=")[::2] for word in words if word.startswith("--gin")]
        configurables.parse(
            [value for flag, value in given if flag == "--gin_file"],
            [value for flag, value in given if flag == "--gin_param"],
        )


def test_a_misspelt_binding_is_rejected(tmp_path, capsys):
    flags = ["--study=studies/digits.gin", "--dry_run", f"--output_dir={tmp_path}"]
    wrong = "--gin_param=sweep.duration = (1, 2)"
    assert main([*flags, f"--gin_param={PATTERNS}", wrong]) == 1
    assert "duration" in capsys.readouterr().err


def test_a_branch_in_the_warm_up_is_rejected_before_any_work(tmp_path, capsys):
    """The quickstart warms up for 100 steps: a branch at step 80 would fail."""
    flags = ["--study=studies/digits.gin", "--dry_run", f"--output_dir={tmp_path}"]
    short = "--gin_param=sweep.durations = (100, 200, 800)"
    assert main([*flags, f"--gin_param={PATTERNS}", short]) == 1
    message = capsys.readouterr().err
    assert "Durations 100 cannot be branched" in message and "step" in message
    assert "at least 125 steps" in message
    gin.clear_config()
    alone = "--gin_param=sweep.cooldown_share = None"
    assert main([*flags, f"--gin_param={PATTERNS}", short, alone]) == 0
