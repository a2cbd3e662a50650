"""A sweep continues after failures and after a kill, and loses no run."""
# SPDX-License-Identifier: Apache-2.0

import csv
import itertools
import json

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
