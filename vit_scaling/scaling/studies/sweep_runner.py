"""Run a study's jobs one by one, resumably, and keep its table of finished runs."""
# SPDX-License-Identifier: Apache-2.0

import csv
import dataclasses
import io
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vit_scaling.run_record import find_run_record
from vit_scaling.scaling.laws.runs import CSV_COLUMNS, SHAPE_COLUMNS
from vit_scaling.scaling.studies.sweep import (
    Job,
    Study,
    command,
    command_text,
    together,
)
from vit_scaling.scaling.studies.sweep_settings import (
    SETTINGS_FILE,
    Find,
    check_settings,
    settings,
    write_settings,
    write_whole,
)

METRICS_FILE = "metrics.jsonl"
RUN_COLUMNS = (*CSV_COLUMNS, "steps", "core_hours", "folder", *SHAPE_COLUMNS)
FAILURE_COLUMNS = ("time", "folder", "exit_code", "last_line", "command")
Runner = Callable[[list[str], pathlib.Path], int]


def run_study(
    study: Study,
    *,
    output_dir: str | pathlib.Path,
    work_dir: str | pathlib.Path | None = None,
    runner: Runner | None = None,
    say: Callable[[str], None] | None = None,
    find: Find = pathlib.Path,
) -> dict[str, Any]:
    """Run every job that is not finished; write runs.csv as they end.

    A job is finished once its metrics.jsonl holds the metric at its last step, so a
    sweep that was killed goes on where it was: the training binary itself resumes a run
    from its checkpoint. A job that fails is written to failures.csv and the sweep goes
    on; it is tried again when the sweep is started again. What a run was started with
    stands in its job.json: nothing is run if that is not what the study asks for now.

    Args:
        study: From `sweep`.
        output_dir: Where runs.csv and failures.csv go.
        work_dir: Where the runs go; default: `output_dir`/work.
        runner: Runs a command with a log file and returns its exit code.
        say: Prints a line.
        find: From a gin file's name to its path, to see whether it was edited.

    Returns:
        "finished", "failed", "runs_csv" and "failures_csv".

    Raises:
        ValueError: A run in the work folder was started with other settings.
    """
    output = pathlib.Path(output_dir)
    work = pathlib.Path(work_dir) if work_dir else output / "work"
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    runner = runner or run_command
    check_settings(study.jobs, work, find)
    output.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    groups = together(study.jobs)
    for number, group in enumerate(groups, start=1):
        left = [job for job in group if result(study, job, work) is None]
        if left:
            steps = ", ".join(str(job.steps) for job in left)
            say(f"{number}/{len(groups)} {left[0].trunk}: {steps} steps")
            end = "_branches.log" if left[0].is_branch else ".log"
            log = work / (left[0].trunk + end)
            log.parent.mkdir(parents=True, exist_ok=True)
            if not left[0].is_branch:
                path = work / left[0].folder / SETTINGS_FILE
                write_settings(path, settings(left[0].arguments, find))
            code = runner(command(left, str(work)), log)
            for job in left:
                if result(study, job, work) is None:
                    failed.append(job.folder)
                    _note_failure(output / "failures.csv", job, work, code, log)
                    say(f"  failed with exit code {code}; see {log}")
        write_table(study, output / "runs.csv", work)
    return {
        "finished": len(study.jobs) - len(failed),
        "failed": failed,
        "runs_csv": str(output / "runs.csv"),
        "failures_csv": str(output / "failures.csv") if failed else None,
    }


def run_command(command: list[str], log: pathlib.Path) -> int:
    """Run a command, append what it says to `log`, return its exit code."""
    with open(log, "ab") as file:
        return subprocess.run(command, stdout=file, stderr=file, check=False).returncode


def result(study: Study, job: Job, work: pathlib.Path) -> dict[str, Any] | None:
    """Return what a finished job measured, {metric: accuracy}; None if it is not."""
    found: dict[str, Any] = {}
    for row in records(work / job.folder / METRICS_FILE):
        if row.get("kind") == "train":
            found["core_hours"] = row.get("core_hours", found.get("core_hours"))
        if row.get("step") != job.steps:
            continue
        for name, source in study.metrics.items():
            kind, _, field = source.rpartition("/")
            if row.get("kind") == kind and field in row:
                found[name] = float(row[field])
    return found if all(name in found for name in study.metrics) else None


def records(path: pathlib.Path) -> Iterator[Mapping[str, Any]]:
    """Yield the whole lines of a run's metrics.jsonl; none if there is no such file."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:  # The last line of a run that was killed.
            continue


def write_table(study: Study, path: pathlib.Path, work: pathlib.Path) -> int:
    """Write one row per finished run and metric, all at once; return their number."""
    text = io.StringIO()
    writer = csv.DictWriter(text, RUN_COLUMNS, lineterminator="\n")
    writer.writeheader()
    count = 0
    seen: set[tuple[Any, ...]] = set()
    for job in study.jobs:
        found = result(study, job, work)
        if found is None:
            continue
        size = images_in_set(job, work)
        kind = (job.model, size, job.steps, job.seed)
        # Two sizes that take the whole set are one run, repeated: told apart by seed.
        asked = "all" if job.data_size is None else f"{job.data_size:.0f}"
        seed = f"{job.seed} of {asked}" if kind in seen else f"{job.seed}"
        seen.add(kind)
        for metric in study.metrics:
            writer.writerow(_row(study, job, metric, found, size, seed))
            count += 1
    write_whole(path, text.getvalue())
    return count


def images_in_set(job: Job, work: pathlib.Path) -> int | None:
    """Return the different images that a run saw, as its run.json says.

    A set may hold fewer than were asked for, and "all" is no number. Where run.json
    does not say (runs of older versions), what was asked for; None is all.
    """
    record = find_run_record(work / job.folder)
    size = job.data_size
    if record is not None and record.train_images is not None:
        size = record.train_images
    return None if size is None else int(size)


def _row(
    study: Study,
    job: Job,
    metric: str,
    found: Mapping[str, Any],
    size: int | None,
    seed: str,
) -> dict[str, Any]:
    # As the paper counts it: a branch cost what a run of its duration would have.
    each = job.flops / job.own_steps
    return {
        "model": job.model,
        "data_size": "" if size is None else size,
        "images_seen": job.steps * study.batch_size,
        "compute": f"{job.steps * each:.6g}",
        "compute_unit": "flops",
        "error": f"{1 - found[metric]:.6f}",
        "metric": metric,
        "seed": seed,
        "weight": 1,
        "source": study.name,
        "steps": job.steps,
        "core_hours": found.get("core_hours") or "",
        "folder": job.folder,
        **dataclasses.asdict(job.shape),
    }


def _note_failure(
    path: pathlib.Path, job: Job, work: pathlib.Path, code: int, log: pathlib.Path
) -> None:
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    last = next((line for line in reversed(lines) if line.strip()), "")
    is_new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(FAILURE_COLUMNS)
        now = time.strftime("%Y-%m-%dT%H:%M:%S")
        text = command_text([job], str(work))
        writer.writerow([now, job.folder, code, last, text])
