"""Run the jobs of a sweep one by one, resumably, and write the table of finished runs.

A job is finished once its metrics.jsonl has the metrics of its last step.
"""
# SPDX-License-Identifier: Apache-2.0

import csv
import dataclasses
import io
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from vit_scaling.io_files import write_json, write_text
from vit_scaling.run_record import find_run_record
from vit_scaling.scaling.laws.runs import CSV_COLUMNS, SHAPE_COLUMNS
from vit_scaling.scaling.studies.child_process import run_command
from vit_scaling.scaling.studies.jobs import (
    Job,
    group_by_process,
    make_command,
    make_shell_command,
)
from vit_scaling.scaling.studies.run_settings import (
    FindFile,
    check_unchanged,
    collect_settings,
    has_trained,
)
from vit_scaling.scaling.studies.sweep import Sweep
from vit_scaling.training.run_lock import hold_run_lock

METRICS_FILE = "metrics.jsonl"
SETTINGS_FILE = "job.json"
RUN_COLUMNS = (*CSV_COLUMNS, "steps", "core_hours", "folder", *SHAPE_COLUMNS)
# A user's error as the training binary prints it, or the last line of a trace.
_ERROR = re.compile(r"(?:vit-scaling train: error: |(?=[\w.]+Error\b))(.+)")
FAILURE_COLUMNS = ("time", "folder", "exit_code", "last_line", "command")
Runner = Callable[[list[str], epath.Path], int]


def run_sweep(
    sweep: Sweep,
    *,
    output_dir: epath.PathLike,
    work_dir: epath.PathLike | None = None,
    runner: Runner | None = None,
    log: Callable[[str], None] | None = None,
    find_file: FindFile = epath.Path,
) -> dict[str, Any]:
    """Run every unfinished job; update runs.csv whenever a process ends.

    A sweep that was killed takes the training process with it, and continues where it
    stopped: the training binary resumes a run from its checkpoint. A job that fails is
    written to failures.csv, the other jobs still run, and it is tried again when the
    sweep is started again. The settings of each run are recorded in its job.json. If
    they differ from those of the sweep, nothing is run.

    Args:
        sweep: The grid of runs.
        output_dir: Folder of runs.csv and failures.csv.
        work_dir: Folder of the runs; default: `output_dir`/work.
        runner: Runs a command with a log file and returns its exit code.
        log: Prints a line; default: on standard error.
        find_file: Maps a gin file's name to its path, to detect edited files.

    Returns:
        "finished", "failed", "runs_csv" and "failures_csv".

    Raises:
        ValueError: A run in the work folder was started with other settings.
        RunLockedError: Another sweep runs in `output_dir`.
    """
    output = epath.Path(output_dir)
    work = epath.Path(work_dir) if work_dir else output / "work"
    log = log or print_to_stderr
    check_settings(sweep.jobs, work, find_file)
    output.mkdir(parents=True, exist_ok=True)
    with hold_run_lock(output, flag="output_dir"):
        return _run_all(sweep, output, work, runner or run_command, log, find_file)


def _run_all(
    sweep: Sweep,
    output: epath.Path,
    work: epath.Path,
    runner: Runner,
    log: Callable[[str], None],
    find_file: FindFile,
) -> dict[str, Any]:
    failed: list[str] = []
    groups = group_by_process(sweep.jobs)
    for number, group in enumerate(groups, start=1):
        if jobs := unfinished_jobs(sweep, group, work):
            steps = ", ".join(str(job.steps) for job in jobs)
            log(f"{number}/{len(groups)} {jobs[0].trunk}: {steps} steps")
            code, log_file = _run_process(jobs, work, runner, find_file)
            for job in unfinished_jobs(sweep, jobs, work):
                failed.append(job.folder)
                _append_failure(output / "failures.csv", job, work, code, log_file)
                log(f"  failed with exit code {code}; see {log_file}")
        write_table(sweep, output / "runs.csv", work)
    return {
        "finished": len(sweep.jobs) - len(failed),
        "failed": failed,
        "runs_csv": str(output / "runs.csv"),
        "failures_csv": str(output / "failures.csv") if failed else None,
    }


def check_settings(
    jobs: Iterable[Job], work: epath.Path, find_file: FindFile = epath.Path
) -> None:
    """Raise if a run that has begun to train was started with other settings.

    Folders without job.json, from older versions, are accepted.

    Raises:
        ValueError: Settings differ; the message names the differences.
    """
    for job in jobs:
        path = work / job.trunk / SETTINGS_FILE
        if not job.is_branch and has_trained(path.parent):
            check_unchanged(
                path,
                collect_settings(job.arguments, find_file),
                "One table must not mix them: give another --output_dir (and "
                "--work_dir, where you give one), or restore the former settings.",
            )


def _run_process(
    jobs: Sequence[Job], work: epath.Path, runner: Runner, find_file: FindFile
) -> tuple[int, epath.Path]:
    """Run jobs that share a process; return its exit code and log file."""
    first = jobs[0]
    log = work / (first.trunk + ("_branches.log" if first.is_branch else ".log"))
    log.parent.mkdir(parents=True, exist_ok=True)
    if not first.is_branch:
        settings = collect_settings(first.arguments, find_file)
        write_json(work / first.folder / SETTINGS_FILE, settings)
    return runner(make_command(jobs, str(work)), log), log


def print_to_stderr(line: str) -> None:
    """Print a line on standard error at once."""
    print(line, file=sys.stderr, flush=True)


def unfinished_jobs(sweep: Sweep, jobs: Iterable[Job], work: epath.Path) -> list[Job]:
    """Return the jobs that have not measured the sweep's metrics at their last step."""
    return [job for job in jobs if read_result(sweep, job, work) is None]


def read_result(sweep: Sweep, job: Job, work: epath.Path) -> dict[str, Any] | None:
    """Return a finished job's {metric: accuracy} and core-hours; None if unfinished."""
    result: dict[str, Any] = {}
    for row in read_metrics(work / job.folder):
        if row.get("kind") == "train":
            result["core_hours"] = row.get("core_hours", result.get("core_hours"))
        if row.get("step") != job.steps:
            continue
        for name, source in sweep.metrics.items():
            kind, _, field = source.rpartition("/")
            if row.get("kind") == kind and field in row:
                result[name] = float(row[field])
    return result if all(name in result for name in sweep.metrics) else None


def read_metrics(folder: epath.Path) -> Iterator[Mapping[str, Any]]:
    """Yield the complete lines of a run's metrics.jsonl; none if it is missing."""
    path = folder / METRICS_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:  # The last line of a run that was killed.
            continue


def write_table(sweep: Sweep, path: epath.Path, work: epath.Path) -> None:
    """Write one row per finished run and metric, atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, RUN_COLUMNS, lineterminator="\n")
    writer.writeheader()
    seen: set[tuple[Any, ...]] = set()
    for job in sweep.jobs:
        result = read_result(sweep, job, work)
        if result is None:
            continue
        size = count_training_images(job, work)
        key = (job.model, size, job.steps, job.seed)
        # Two sizes that take the whole set are repetitions: the seed must differ.
        requested = "all" if job.data_size is None else f"{job.data_size:.0f}"
        seed = f"{job.seed} of {requested}" if key in seen else f"{job.seed}"
        seen.add(key)
        facts = {"data_size": "" if size is None else size, "seed": seed}
        for metric in sweep.metrics:
            writer.writerow({**_row(sweep, job, metric, result), **facts})
    write_text(path, text.getvalue())


def count_training_images(job: Job, work: epath.Path) -> int | None:
    """Return the number of different images that a run saw.

    run.json has it, since a set may have fewer than requested. Records of older
    versions lack it: then the requested number is returned, None for the whole set.
    """
    record = find_run_record(work / job.folder)
    recorded = record.train_images if record else None
    size = job.data_size if recorded is None else recorded
    return None if size is None else int(size)


def _row(
    sweep: Sweep, job: Job, metric: str, result: Mapping[str, Any]
) -> dict[str, Any]:
    # As in the paper, a branch costs as much as a separate run of its duration.
    flops_per_step = job.flops / job.trained_steps
    return {
        "model": job.model,
        "images_seen": job.steps * sweep.batch_size,
        "compute": f"{job.steps * flops_per_step:.6g}",
        "compute_unit": "flops",
        "error": f"{1 - result[metric]:.6f}",
        "metric": metric,
        "weight": 1,
        "source": sweep.name,
        "steps": job.steps,
        "core_hours": result.get("core_hours") or "",
        "folder": job.folder,
        **dataclasses.asdict(job.shape),
    }


def read_error(log: epath.Path) -> str:
    """Return the error in the log of a run that failed, in one line.

    It is the last line that begins with an error's name or the training binary's, or
    else the last one that is not blank; "" if there is none. What a library prints
    after the error, and an error's further lines, are left out.
    """
    text = log.read_bytes().decode(errors="replace") if log.is_file() else ""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [match[1] for match in map(_ERROR.match, lines) if match]
    return (errors or lines or [""])[-1]


def _append_failure(
    path: epath.Path, job: Job, work: epath.Path, code: int, log: epath.Path
) -> None:
    is_new = not path.exists()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if is_new:
        writer.writerow(FAILURE_COLUMNS)
    now = time.strftime("%Y-%m-%dT%H:%M:%S")
    command = make_shell_command([job], str(work))
    writer.writerow([now, job.folder, code, read_error(log), command])
    with path.open("ab") as file:
        file.write(text.getvalue().encode())
