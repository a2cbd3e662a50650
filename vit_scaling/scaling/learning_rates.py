"""Train once per learning rate; a held-out part of the set chooses (App. D)."""
# SPDX-License-Identifier: Apache-2.0

import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from vit_scaling.scaling.sweep import TRAIN
from vit_scaling.scaling.sweep_runner import METRICS_FILE, Runner, records, run_command

LEARNING_RATES = (0.03, 0.01)  # App. D.
HELD_OUT = 0.02  # App. D.
REPORT = "learning_rates.json"


def choose_learning_rate(
    gin_files: Sequence[str],
    gin_params: Sequence[str] = (),
    *,
    output_dir: str | pathlib.Path,
    learning_rates: Sequence[float] = LEARNING_RATES,
    held_out: float = HELD_OUT,
    retrain: bool = False,
    runner: Runner = run_command,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train at each learning rate on all but a held-out part, and name the best there.

    for each rate: train without the held-out part; evaluate on it and on the set
    the rate with the highest top-1 on the held-out part is chosen; the evaluation set
    has no say

    Each run is a process of the training binary and resumes if started again. A run
    that fails, such as by a rate at which the loss is no number, is out of the choice.

    Args:
        gin_files: Experiment, by path or name; it must read BASE_LEARNING_RATE and
            TRAIN_PATTERN.
        gin_params: Its bindings.
        output_dir: Folder of the runs, one a rate, and of `learning_rates.json`.
        learning_rates: To choose from ({0.03, 0.01} in App. D).
        held_out: Share of the training images (0.02 in App. D).
        retrain: Train once more at the chosen rate, on all training images.
        runner: Runs a command with a log file and returns its exit code.
        say: Prints a line.

    Returns:
        `learning_rate`, `model_dir` (of the chosen run, or of the one on all images),
        `top1` on the evaluation set, and per rate in `runs` its `held_out` and `eval`
        top-1, or what `failed`.

    Raises:
        ValueError: An argument is out of its range.
        RuntimeError: Every run failed.
    """
    if not learning_rates or len(set(learning_rates)) != len(learning_rates):
        raise ValueError(
            "`learning_rates` must be one or more different rates; received "
            f"{list(learning_rates)}."
        )
    if not 0 < held_out < 1:
        raise ValueError(
            "`held_out` must be a share of the training images between 0 and 1; "
            f"received {held_out}."
        )
    output = pathlib.Path(output_dir)
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    shared = [f"--gin_file={file}" for file in gin_files]
    part = ["--gin_file=data/held_out.gin"]
    bindings = [f"--gin_param={text}" for text in gin_params]
    share = [f"--gin_param=TRAIN_FRACTION = {1 - held_out:.12g}"]

    def run(rate: float, name: str, arguments: list[str]) -> dict[str, Any]:
        say(f"Train at {rate:g}: {output / name}")
        rated = [*arguments, f"--gin_param=BASE_LEARNING_RATE = {rate}"]
        return _run(rated, output / name, runner)

    runs = []
    for rate in learning_rates:
        done = run(rate, f"rate_{rate:g}", [*shared, *part, *bindings, *share])
        runs.append({"learning_rate": rate, **done})
    good = [one for one in runs if "failed" not in one]
    if not good:
        raise RuntimeError(
            f"Every run failed, the first by: {runs[0]['failed']} See the logs in "
            f"{output}."
        )
    best = max(good, key=lambda one: one["held_out"])  # Of equal ones the first.
    rate, last = best["learning_rate"], best
    if retrain:
        last = run(rate, "all_images", [*shared, *bindings])
        if "failed" in last:
            raise RuntimeError(f"The run on all images failed: {last['failed']}")
    report = {
        "learning_rate": rate,
        "model_dir": last["model_dir"],
        "top1": last["eval"],
        "runs": runs,
    }
    (output / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _run(arguments: list[str], folder: pathlib.Path, runner: Runner) -> dict[str, Any]:
    """Train and return the last top-1 of each evaluation set, or why it failed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_name(f"{folder.name}.log")
    command = [sys.executable, *TRAIN, *arguments, f"--model_dir={folder}"]
    code = runner(command, log)
    found = {
        row["kind"]: row["top1"]
        for row in records(folder / METRICS_FILE)
        if "top1" in row
    }
    result: dict[str, Any] = {"model_dir": str(folder)}
    if code == 0 and "eval" in found:
        return {**result, **{k: found[k] for k in ("held_out", "eval") if k in found}}
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    last = next((line for line in reversed(lines) if line.strip()), "")
    return {**result, "failed": last or f"exit code {code}"}
