"""VTAB-1k: choose rate and length on 200 images, train on 1,000, average by group."""
# SPDX-License-Identifier: Apache-2.0

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from vit_scaling.io_files import write_json
from vit_scaling.scaling.studies.child_process import run_and_show
from vit_scaling.scaling.studies.learning_rate_search import claim_folder, train_once
from vit_scaling.scaling.studies.run_settings import FindFile, collect_settings
from vit_scaling.scaling.studies.sweep_runner import Runner, print_to_stderr

# The "lightweight" search of Zhai et al. 2019, the same for all tasks: four runs each
# (`hyper_sweep_size` in docs/data/results.csv of google-research/task_adaptation, whose
# README trains at 0.01 for 2,500 steps).
LEARNING_RATES = (0.1, 0.01)
STEPS = (2_500, 10_000)
GROUPS = ("natural", "specialized", "structured")
REPORT_FILE = "vtab.json"


class TaskSets(NamedTuple):
    """A task and the patterns of its sets `train`, `val` and `test`."""

    name: str
    group: str
    classes: int
    patterns: Mapping[str, str]


def run_vtab(
    tasks: Sequence[TaskSets],
    gin_files: Sequence[str],
    gin_params: Sequence[str] = (),
    *,
    output_dir: epath.PathLike,
    learning_rates: Sequence[float] = LEARNING_RATES,
    steps: Sequence[int] = STEPS,
    runner: Runner = run_and_show,
    log: Callable[[str], None] = print_to_stderr,
    find_file: FindFile = epath.Path,
) -> dict[str, Any]:
    """Fine-tune on each task and report the mean accuracy of each group.

    for each task: train at each rate and length on `train`, compare top-1 on `val`;
    train at the best on `train` and `val`; top-1 on `test` is the task's result

    Runs resume if started again; one that fails, such as by a diverged loss, is not
    chosen. With one rate and one length, nothing is compared.

    Args:
        tasks: The tasks with their sets.
        gin_files: Experiment, by path or name; it must read BASE_LEARNING_RATE,
            TOTAL_STEPS, CLASSES, TRAIN_PATTERN and EVAL_PATTERN.
        gin_params: Its bindings.
        output_dir: Folder of the runs, TASK/RUN, and of `vtab.json`.
        learning_rates: Candidates.
        steps: Candidates for the length of a run.
        runner: Runs a command with a log file and returns its exit code.
        log: Prints a line.
        find_file: Maps a gin file's name to its path, to detect edited files.

    Returns:
        `tasks`: group, chosen rate and steps, top-1 on `val` and `test` of each, or
        why it `failed`; `groups`: mean top-1 of each group; `mean` of all tasks.

    Raises:
        ValueError: There are no tasks, or runs in the folder had other settings.
    """
    if not tasks or not learning_rates or not steps:
        raise ValueError(
            "`tasks`, `learning_rates` and `steps` must not be empty; received "
            f"{len(tasks)}, {len(learning_rates)} and {len(steps)}."
        )
    output = epath.Path(output_dir)
    grid = list(itertools.product(learning_rates, steps))
    results: dict[str, dict[str, Any]] = {}
    for task in tasks:
        arguments = [f"--gin_file={file}" for file in gin_files]
        arguments += [f"--gin_param={text}" for text in gin_params]
        arguments.append(f"--gin_param=CLASSES = {task.classes}")
        folder = output / task.name
        claim_folder(folder, collect_settings(arguments, find_file))
        results[task.name] = _run_task(task, arguments, folder, grid, runner, log)
    report = {"tasks": results, **_means(results)}
    write_json(output / REPORT_FILE, report)
    return report


def _run_task(
    task: TaskSets,
    arguments: Sequence[str],
    folder: epath.Path,
    grid: Sequence[tuple[float, int]],
    runner: Runner,
    log: Callable[[str], None],
) -> dict[str, Any]:
    def train(rate: float, steps: int, train_on: Sequence[str], test: str) -> Any:
        name = f"{'_'.join(train_on)}_{rate:g}_{steps}"
        log(f"{task.name}: {name}")
        patterns = ",".join(task.patterns[split] for split in train_on)
        bindings = [
            f"TRAIN_PATTERN = {patterns!r}",
            f"EVAL_PATTERN = {task.patterns[test]!r}",
            f"BASE_LEARNING_RATE = {rate}",
            f"TOTAL_STEPS = {steps}",
        ]
        words = [*arguments, *(f"--gin_param={text}" for text in bindings)]
        result = train_once(words, folder / name, runner, ("eval",))
        if "failed" in result:
            log(f"{task.name}: {name} failed: {result['failed']}")
        return result

    facts: dict[str, Any] = {"group": task.group}
    best = grid[0]
    if len(grid) > 1:
        found = {pair: train(*pair, ("train",), "val") for pair in grid}
        finished = {pair: r["eval"] for pair, r in found.items() if "eval" in r}
        if not finished:
            return {**facts, "failed": found[best]["failed"]}
        best = max(finished, key=lambda pair: finished[pair])  # Ties: the first.
        facts["val"] = finished[best]
        facts["grid"] = [
            {"learning_rate": rate, "steps": steps, "val": finished.get((rate, steps))}
            for rate, steps in grid
        ]
    facts |= {"learning_rate": best[0], "steps": best[1]}
    last = train(*best, ("train", "val"), "test")
    if "failed" in last:
        return {**facts, "failed": last["failed"]}
    return {**facts, "test": last["eval"], "model_dir": last["model_dir"]}


def _means(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    tested = [result for result in results.values() if "test" in result]
    by_group = {
        group: [result["test"] for result in tested if result["group"] == group]
        for group in GROUPS
    }
    return {
        "groups": {
            group: {"tasks": len(top1), "mean": statistics.fmean(top1)}
            for group, top1 in by_group.items()
            if top1
        },
        "mean": statistics.fmean(r["test"] for r in tested) if tested else None,
    }
