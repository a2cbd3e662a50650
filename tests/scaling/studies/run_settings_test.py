"""A sweep neither continues nor counts runs of other settings."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.scaling.studies.sweep_test import GRID
from vit_scaling.scaling.studies.run_settings import collect_settings
from vit_scaling.scaling.studies.sweep import Sweep
from vit_scaling.scaling.studies.sweep_runner import check_settings, run_sweep

ONE = {**GRID, "models": {"small": (4, 16, 2, 32, 2)}, "data_sizes": (None,)}


def run(tmp_path, grid, *, trains=True, **options):
    """Run a study with a training binary that gets as far as its first log line."""
    sweep, started = Sweep(**grid), []

    def training(words, log):
        started.append(words)
        folder = tmp_path / "work" / sweep.jobs[0].folder
        if trains:
            (folder / "metrics.jsonl").write_text('{"kind": "train", "step": 10}\n')
        return 1

    run_sweep(
        sweep, output_dir=tmp_path, runner=training, log=lambda _: None, **options
    )
    return started


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gin_params": ("BASE_LEARNING_RATE = 1e-3",)}, "BASE_LEARNING_RATE: not gi"),
        ({"batch_size": 32}, "BATCH_SIZE: 64, now 32"),
        # The trunk is cooled down at its end: a longer one cannot continue from there.
        ({"durations": (100, 200, 400, 800)}, "TOTAL_STEPS: 400, now 800"),
    ],
)
def test_runs_of_other_settings_are_not_continued(tmp_path, change, message):
    assert run(tmp_path, ONE)
    with pytest.raises(ValueError, match=f"{message}.*another --output_dir"):
        run(tmp_path, {**ONE, **change})
    assert run(tmp_path, ONE)  # The former settings still run.


def test_settings_without_effect_on_a_run_may_change(tmp_path):
    run(tmp_path, ONE)
    assert run(tmp_path, {**ONE, "durations": (200, 400), "name": "other"})


def test_an_edited_gin_file_is_another_setting(tmp_path):
    shared, mine = tmp_path / "shared.gin", tmp_path / "mine.gin"
    shared.write_text("BASE_LEARNING_RATE = 8e-4  # The paper's.\nA = '#1'\n")
    mine.write_text(f"include '{shared}'\n")
    grid = {**ONE, "gin_files": (str(mine),)}
    assert collect_settings(Sweep(**grid).jobs[0].arguments)["gin_files"] == {
        str(mine): [f"include '{shared}'"],
        str(shared): ["BASE_LEARNING_RATE = 8e-4", "A = '#1'"],
    }
    run(tmp_path, grid)
    shared.write_text("# As the paper has it.\nBASE_LEARNING_RATE = 8e-4\nA = '#1'\n")
    assert run(tmp_path, grid)  # A comment binds nothing.
    shared.write_text("BASE_LEARNING_RATE = 4e-4\nA = '#1'\n")
    with pytest.raises(ValueError, match="BASE_LEARNING_RATE: 8e-4, now 4e-4"):
        run(tmp_path, grid)


def test_a_run_that_never_trained_may_change_its_settings(tmp_path):
    run(tmp_path, {**ONE, "batch_size": 4096}, trains=False)
    assert run(tmp_path, ONE)
    with pytest.raises(ValueError, match="BATCH_SIZE: 64, now 4096"):
        run(tmp_path, {**ONE, "batch_size": 4096})


def test_older_folders_and_unknown_files_are_accepted(tmp_path):
    sweep = Sweep(**{**ONE, "gin_files": ("nowhere/to_be_found.gin",)})
    assert collect_settings(sweep.jobs[0].arguments)["gin_files"] == {}
    folder = tmp_path / sweep.jobs[0].folder
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"kind": "train", "step": 10}\n')
    check_settings(sweep.jobs, tmp_path)
