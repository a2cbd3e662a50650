"""Train once per learning rate; a held-out part of the set chooses (App. D)."""
# SPDX-License-Identifier: Apache-2.0

import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vit_scaling.scaling.studies.sweep import TRAIN
from vit_scaling.scaling.studies.sweep_runner import (
    METRICS_FILE,
    Runner,
    records,
    run_command,
)
from vit_scaling.scaling.studies.sweep_settings import (
    Find,
    check_same,
    has_trained,
    settings,
    write_settings,
)

LEARNING_RATES = (0.03, 0.01)  # App. D.
HELD_OUT = 0.02  # App. D.
REPORT = "learning_rates.json"
SETTINGS_FILE = "settings.json"
SETS = "Experiment.eval_data"


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
    find: Find = pathlib.Path,
) -> dict[str, Any]:
    """Train at each learning rate on all but a held-out part, and name the best there.

    for each rate: train without the held-out part; evaluate on it and on the set
    the rate with the highest top-1 on the held-out part is chosen; the evaluation set
    has no say

    Each run is a process of the training binary and resumes if started again. A run
    that fails, such as by a rate at which the loss is no number, is out of the choice.
    What all runs share stands in settings.json: other settings are refused, while rates
    may be added.

    Args:
        gin_files: Experiment, by path or name; it must read BASE_LEARNING_RATE and
            TRAIN_PATTERN.
        gin_params: Its bindings.
        output_dir: Folder of the runs, one a rate, and of `learning_rates.json` and
            `settings.json`.
        learning_rates: To choose from ({0.03, 0.01} in App. D).
        held_out: Share of the training images (0.02 in App. D).
        retrain: Train once more at the chosen rate, on all training images.
        runner: Runs a command with a log file and returns its exit code.
        say: Prints a line.
        find: From a gin file's name to its path, to see whether it was edited.

    Returns:
        `learning_rate`, `model_dir` (of the chosen run, or of the one on all images),
        `top1` on the evaluation set, and per rate in `runs` its `held_out` and `eval`
        top-1, or what `failed`.

    Raises:
        ValueError: An argument is out of its range, runs in the folder were started
            with other settings, or a run did not measure both sets.
        RuntimeError: Every run failed.
    """
    _check_arguments(learning_rates, held_out, gin_params)
    output = pathlib.Path(output_dir)
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    shared = [f"--gin_file={file}" for file in gin_files]
    part = ["--gin_file=data/held_out.gin"]
    bindings = [f"--gin_param={text}" for text in gin_params]
    share = [f"--gin_param=TRAIN_FRACTION = {1 - held_out:.12g}"]
    choosing = [*shared, *part, *bindings, *share]
    _take_folder(output, settings(choosing, find))

    def run(
        rate: float, name: str, arguments: list[str], sets: tuple[str, ...]
    ) -> dict[str, Any]:
        say(f"Train at {rate:g}: {output / name}")
        rated = [*arguments, f"--gin_param=BASE_LEARNING_RATE = {rate}"]
        return _run(rated, output / name, runner, sets)

    runs = []
    for rate in learning_rates:
        done = run(rate, f"rate_{rate:g}", choosing, ("held_out", "eval"))
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
        last = run(rate, "all_images", [*shared, *bindings], ("eval",))
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


def _check_arguments(
    learning_rates: Sequence[float], held_out: float, gin_params: Sequence[str]
) -> None:
    """Refuse, before any run, what could not end in a choice."""
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
    for text in gin_params:
        if text.partition("=")[0].strip().endswith(SETS):
            raise ValueError(
                f"A binding of {SETS} would take the place of that in "
                "data/held_out.gin, whose 'held_out' chooses the rate. Bind "
                f"EvalData.source or its file pattern instead of: {text}."
            )


def _take_folder(output: pathlib.Path, now: Mapping[str, Any]) -> None:
    """Write the settings into the folder, or refuse it as that of other runs."""
    if output.is_dir() and any(map(has_trained, output.iterdir())):
        check_same(
            output / SETTINGS_FILE,
            now,
            "Its runs are of those: give another --output_dir, or take the former "
            "settings back.",
        )
    write_settings(output / SETTINGS_FILE, now)


def _run(
    arguments: list[str], folder: pathlib.Path, runner: Runner, sets: tuple[str, ...]
) -> dict[str, Any]:
    """Train and return the last top-1 of each evaluation set, or why it failed.

    Raises:
        ValueError: The run ended well but did not measure one of the sets.
    """
    log = folder.with_name(f"{folder.name}.log")
    command = [sys.executable, *TRAIN, *arguments, f"--model_dir={folder}"]
    code = runner(command, log)
    found = {
        row["kind"]: row["top1"]
        for row in records(folder / METRICS_FILE)
        if "top1" in row
    }
    result: dict[str, Any] = {"model_dir": str(folder)}
    if code:
        lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
        last = next((line for line in reversed(lines) if line.strip()), "")
        return {**result, "failed": last or f"exit code {code}"}
    if missing := [name for name in sets if name not in found]:
        raise ValueError(
            f"The run in {folder} measured {', '.join(found) or 'nothing'} and not "
            f"{' and '.join(missing)}: a gin file binds {SETS} to other sets, or "
            "evaluation is off. Leave it to data/held_out.gin ('held_out', 'eval'), "
            "remove the run's folder and start again."
        )
    return {**result, **{name: found[name] for name in sets}}
