"""A sweep continues after failures and after a kill, and loses no run."""
# SPDX-License-Identifier: Apache-2.0

import csv
import itertools
import json
import random
import subprocess
import sys
import time

import pytest

from tests.scaling.studies.sweep_test import GRID
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.run_record import RunRecord, save_run_record
from vit_scaling.scaling.laws.run_tables import runs_from
from vit_scaling.scaling.studies.jobs import group_by_process, make_command
from vit_scaling.scaling.studies.sweep import Sweep
from vit_scaling.scaling.studies.sweep_runner import (
    read_error,
    read_result,
    run_command,
    run_sweep,
)
from vit_scaling.training.run_lock import RunLockedError, hold_run_lock

SWEEP = Sweep(**{**GRID, "data_sizes": (None,)})


class FakeTraining:
    """Writes the metrics that the training binary would; fails for some of them."""

    def __init__(self, work, sweep, *, fails=(), dies_at=None, images=None):
        self.work, self.fails, self.dies_at, self.ran = work, fails, dies_at, []
        self.sweep, self.images = sweep, images

    def __call__(self, words, log):
        group = next(
            group
            for jobs in group_by_process(self.sweep.jobs)
            for group in itertools.chain.from_iterable(
                itertools.combinations(jobs, number + 1) for number in range(len(jobs))
            )
            if make_command(group, str(self.work)) == words
        )
        log.write_text("loading\nOut of memory\n")
        return max(self.train(job) for job in group)

    def train(self, job):
        self.ran.append(job.folder)
        if len(self.ran) == self.dies_at:
            raise KeyboardInterrupt  # As abrupt as a kill for what follows.
        if job.folder in self.fails:
            return 1
        folder = self.work / job.folder
        folder.mkdir(parents=True, exist_ok=True)
        rows = [
            {"kind": "train", "step": job.steps, "core_hours": 0.25},
            {"kind": "eval", "step": job.steps - 10, "top1": 0.1},
            {"kind": "eval", "step": job.steps, "top1": 0.75},
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "metrics.jsonl").write_text(lines + '{"kind": "ev')  # Cut off.
        if self.images:  # What older versions did not write.
            images = int(min(job.data_size or self.images, self.images))
            record = RunRecord((), (8, 8), train_images=images)
            save_run_record(folder, record)
        return 0


def run(tmp_path, sweep=SWEEP, **options):
    training = FakeTraining(tmp_path / "work", sweep, **options)
    report = run_sweep(sweep, output_dir=tmp_path, runner=training, log=lambda _: None)
    return training, report


def test_every_finished_run_is_one_row(tmp_path):
    training, report = run(tmp_path)
    assert training.ran == [job.folder for job in SWEEP.jobs]
    assert report["finished"] == 6 and not report["failed"]
    runs = runs_from(tmp_path)
    assert len(runs) == 6
    assert runs.compute_unit == "flops"
    assert set(runs.error) == {0.25}
    # A branch counts as a run of its whole duration, as the paper counts it.
    by_steps = {run.images_seen: run.compute for run in runs if run.model == "small"}
    assert by_steps[400 * 64] == pytest.approx(4 * by_steps[100 * 64], rel=1e-5)


def test_rows_have_the_number_of_images_in_the_set(tmp_path):
    sweep = Sweep(**{**GRID, "data_sizes": (300, "1K", None), "durations": (100,)})
    run(tmp_path, sweep, images=700)
    runs = runs_from(tmp_path)
    assert runs.data_sizes == [300, 700]
    assert len(runs) == 6 and len(runs.averaged_over_seeds()) == 4
    small = [run for run in runs if run.model == "small"]
    assert [run.seed for run in small] == ["0", "0", "0 of all"]


def test_rows_of_older_runs_have_the_requested_number(tmp_path):
    sweep = Sweep(**{**GRID, "data_sizes": (300, None), "durations": (100,)})
    run(tmp_path, sweep)
    assert {run.data_size for run in runs_from(tmp_path)} == {300, None}


def test_rows_have_the_models_shape(tmp_path):
    run(tmp_path)
    shapes = {run.model: run.shape for run in runs_from(tmp_path)}
    assert shapes == {name: ViTShape(*five) for name, five in GRID["models"].items()}


def test_finished_runs_are_not_run_again(tmp_path):
    run(tmp_path)
    training, report = run(tmp_path)
    assert training.ran == []
    assert report["finished"] == 6


def test_a_killed_sweep_continues_where_it_stopped(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, dies_at=3)
    assert len(runs_from(tmp_path)) == 1  # Written when a process ends.
    training, _ = run(tmp_path)
    assert training.ran == [job.folder for job in SWEEP.jobs[2:]]
    assert len(runs_from(tmp_path)) == 6


def test_failures_are_listed_and_tried_again(tmp_path):
    bad = SWEEP.jobs[1].folder
    _, report = run(tmp_path, fails=[bad])
    assert report["failed"] == [bad] and report["finished"] == 5
    rows = list(csv.DictReader((tmp_path / "failures.csv").read_text().splitlines()))
    assert [(r["folder"], r["exit_code"], r["last_line"]) for r in rows] == [
        (bad, "1", "Out of memory")
    ]
    assert "vit_scaling.train" in rows[0]["command"]
    assert len(runs_from(tmp_path)) == 5
    training, report = run(tmp_path)
    assert training.ran == [bad] and not report["failed"]


def test_a_run_is_finished_only_at_its_last_step(tmp_path):
    job = SWEEP.jobs[0]
    assert read_result(SWEEP, job, tmp_path) is None
    (tmp_path / job.folder).mkdir(parents=True)
    row = {"kind": "eval", "step": job.steps - 1, "top1": 0.5}
    (tmp_path / job.folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert read_result(SWEEP, job, tmp_path) is None


def test_commands_are_run_and_their_output_is_logged(tmp_path):
    code = run_command(["sh", "-c", "echo said; exit 3"], tmp_path / "log")
    assert code == 3
    assert (tmp_path / "log").read_text() == "said\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["vit-scaling train: error: No shape is called 'Q'.", "I tsl: end"], "No sha"),
        (["vit-scaling train: error: These differ:", "  head", "  body"], "These diff"),
        (["Traceback", "tf.errors.InternalError: gone", "[[node]]", ""], "tf.errors.I"),
        (["ValueError: an earlier one", "ValueError: the last"], "ValueError: the l"),
        (["step 1/2 loss 3.0", "Killed", ""], "Killed"),
        ([], ""),
    ],
)
def test_the_error_of_a_log_is_found_among_other_lines(tmp_path, lines, expected):
    log = tmp_path / "run.log"
    log.write_text("\n".join(["step 0/2 loss 3.0"] * 300 * bool(lines) + lines))
    error = read_error(log)
    assert error.startswith(expected) and bool(error) == bool(expected)
    assert "error: " not in error


def test_a_second_sweep_in_the_same_folder_is_rejected(tmp_path):
    with (
        hold_run_lock(tmp_path),
        pytest.raises(
            RunLockedError,
            match=r"`output_dir` .* is in use by process .* --output_dir",
        ),
    ):
        run(tmp_path)
    assert not (tmp_path / "runs.csv").exists()
    _, report = run(tmp_path)
    assert report["finished"] == 6


# A trainer of 20 ms a step, which resumes from its checkpoint. A row of a step
# that a killed process reached after its checkpoint is written again, as in training.
TRAINER = """
import json, pathlib, sys, time
folder, steps = pathlib.Path(sys.argv[1]), int(sys.argv[2])
from vit_scaling.training.run_lock import hold_run_lock
with hold_run_lock(folder):
    checkpoint, metrics = folder / "checkpoint", folder / "metrics.jsonl"
    first = int(checkpoint.read_text()) if checkpoint.exists() else 0
    rows = metrics.read_text().splitlines() if metrics.exists() else []
    rows = [row for row in rows if row[-1:] == "}"]
    rows = [row for row in rows if json.loads(row)["step"] <= first]
    metrics.write_text("".join(row + "\\n" for row in rows))
    with open(folder / "starts", "a") as file:
        file.write(f"{first}\\n")
    for step in range(first + 1, steps + 1):
        time.sleep(0.02)
        with open(metrics, "a") as file:
            file.write(json.dumps({"kind": "train", "step": step}) + "\\n")
            if step == steps:
                row = {"kind": "eval", "step": step, "top1": 0.75}
                file.write(json.dumps(row) + "\\n")
        if step % 10 == 0:
            (folder / "new").write_text(str(step))
            (folder / "new").rename(checkpoint)
"""
SWEEPER = """
import pathlib, sys
from vit_scaling.scaling.studies import sweep_runner
from vit_scaling.scaling.studies.child_process import run_command
from tests.scaling.studies.sweep_runner_test import FULL, TRAINER

def runner(words, log):
    folder = words[-1].partition("=")[2]
    job = next(job for job in FULL.jobs if folder.endswith(job.folder))
    command = [sys.executable, "-c", TRAINER, folder, str(job.steps)]
    return run_command(command, log)

report = sweep_runner.run_sweep(FULL, output_dir=sys.argv[1], runner=runner)
sys.exit(len(report["failed"]))
"""
FULL = Sweep(
    **{**GRID, "data_sizes": (None,), "durations": (60, 120), "cooldown_share": None}
)


@pytest.mark.slow
def test_a_sweep_killed_twenty_times_neither_loses_nor_repeats_a_run(tmp_path):
    """The kills come at random moments; each restart goes on at once."""
    generator = random.Random(0)
    sweeper = [sys.executable, "-c", SWEEPER, str(tmp_path)]
    for _ in range(20):
        process = subprocess.Popen(sweeper, stderr=subprocess.PIPE, text=True)
        time.sleep(generator.uniform(0.5, 4))
        process.kill()
        _, errors = process.communicate()
        assert "Error" not in errors
    assert subprocess.run(sweeper).returncode == 0
    assert len(runs_from(tmp_path)) == len(FULL.jobs)
    assert not (tmp_path / "failures.csv").exists()
    starts = 0
    for job in FULL.jobs:
        folder = tmp_path / "work" / job.folder
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        steps = [row["step"] for row in rows if row["kind"] == "train"]
        assert steps == list(range(1, job.steps + 1))
        starts += len((folder / "starts").read_text().split())
    assert len(FULL.jobs) < starts <= len(FULL.jobs) + 20
