"""Jobs are grouped by process and become command lines."""
# SPDX-License-Identifier: Apache-2.0

import shlex

from tests.scaling.studies.sweep_test import GRID
from vit_scaling.scaling.studies.jobs import (
    group_by_process,
    make_command,
    make_shell_command,
)
from vit_scaling.scaling.studies.sweep import Sweep


def test_short_durations_are_branches_of_the_longest_run():
    trunk, *branches = Sweep(**GRID).jobs[:3]
    assert trunk.steps == trunk.trained_steps == 400
    assert "--branch_at=80,160" in trunk.arguments
    assert [(b.steps, b.trained_steps) for b in branches] == [(100, 20), (200, 40)]
    assert branches[0].folder == f"{trunk.folder}/branch_000000100_from_000000080"
    # All are launched on the trunk's folder, the branches by one process.
    assert group_by_process([trunk, *branches]) == [[trunk], branches]
    assert make_command([trunk], "w")[-1] == f"--model_dir=w/{trunk.folder}"
    assert make_command(branches, "w")[-4:] == [
        "--mode=branch_cooldown",
        "--branch_at=80,160",
        "--branch_cooldown_steps=20,40",
        f"--model_dir=w/{trunk.folder}",
    ]


def test_runs_without_branches_have_a_process_each():
    sweep = Sweep(**{**GRID, "cooldown_share": None, "data_sizes": (None,)})
    assert group_by_process(sweep.jobs) == [[job] for job in sweep.jobs]


def test_the_text_is_the_command_as_a_shell_reads_it():
    job = Sweep(**GRID).jobs[0]
    words = shlex.split(make_shell_command([job], "my work"))
    assert words[:3] == ["python", "-m", "vit_scaling.train"]
    assert words[3:] == make_command([job], "my work")[3:]
    assert "--gin_param=SHAPE = @study/ViTShape()" in words
