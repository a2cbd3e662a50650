"""Train once per learning rate; a held-out part of the set chooses (App. D)."""
# SPDX-License-Identifier: Apache-2.0

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from vit_scaling.io_files import write_json
from vit_scaling.run_record import RUN_FILE
from vit_scaling.scaling.studies.child_process import run_and_show
from vit_scaling.scaling.studies.jobs import TRAIN_MODULE
from vit_scaling.scaling.studies.run_settings import (
    FindFile,
    check_unchanged,
    collect_settings,
    has_trained,
)
from vit_scaling.scaling.studies.sweep_runner import (
    Runner,
    print_to_stderr,
    read_error,
    read_metrics,
)

LEARNING_RATES = (0.03, 0.01)  # App. D.
HELD_OUT = 0.02  # App. D.
REPORT_FILE = "learning_rates.json"
SETTINGS_FILE = "settings.json"
EVAL_DATA = "Experiment.eval_data"


def choose_learning_rate(
    gin_files: Sequence[str],
    gin_params: Sequence[str] = (),
    *,
    output_dir: epath.PathLike,
    learning_rates: Sequence[float] = LEARNING_RATES,
    held_out: float = HELD_OUT,
    retrain: bool = False,
    runner: Runner = run_and_show,
    log: Callable[[str], None] = print_to_stderr,
    find_file: FindFile = epath.Path,
) -> dict[str, Any]:
    """Train at each learning rate without a held-out part, and choose the best on it.

    for each rate: train without the held-out part; evaluate on it and on the set
    the rate with the highest top-1 on the held-out part is chosen, whatever its top-1
    on the evaluation set

    Each run is a process of the training binary and resumes if started again. A run
    that fails, for example because its loss diverges, is not chosen. The settings that
    all runs share are in settings.json: other settings are rejected, while learning
    rates may be added.

    Args:
        gin_files: Experiment, by path or name; it must read BASE_LEARNING_RATE and
            TRAIN_PATTERN.
        gin_params: Its bindings.
        output_dir: Folder of the runs, one per rate, and of `learning_rates.json` and
            `settings.json`.
        learning_rates: Candidates ({0.03, 0.01} in App. D).
        held_out: Fraction of the training images (0.02 in App. D).
        retrain: Train once more at the chosen rate, on all training images.
        runner: Runs a command with a log file and returns its exit code; by default its
            output is also printed on standard error.
        log: Prints a line.
        find_file: Maps a gin file's name to its path, to detect edited files.

    Returns:
        `learning_rate`, `model_dir` (of the chosen run, or of the one on all images),
        `top1` on the evaluation set, and per rate in `runs` its `held_out` and `eval`
        top-1, or the reason why it `failed`.

    Raises:
        ValueError: An argument is out of its range, runs in the folder were started
            with other settings, or a run did not measure both sets.
        RuntimeError: Every run failed, or one before it could start.
    """
    _check_arguments(learning_rates, held_out, gin_params)
    output = epath.Path(output_dir)
    shared = [f"--gin_file={file}" for file in gin_files]
    bindings = [f"--gin_param={text}" for text in gin_params]
    fraction = f"--gin_param=TRAIN_FRACTION = {1 - held_out:.12g}"
    choosing = [*shared, "--gin_file=data/held_out.gin", *bindings, fraction]
    claim_folder(output, collect_settings(choosing, find_file))

    def train(
        rate: float, name: str, arguments: list[str], sets: tuple[str, ...]
    ) -> dict[str, Any]:
        log(f"Train at {rate:g}: {output / name}")
        arguments = [*arguments, f"--gin_param=BASE_LEARNING_RATE = {rate}"]
        return train_once(arguments, output / name, runner, sets)

    runs = []
    for rate in learning_rates:
        result = train(rate, f"rate_{rate:g}", choosing, ("held_out", "eval"))
        runs.append({"learning_rate": rate, **result})
        if "failed" not in result:
            continue
        if not (epath.Path(result["model_dir"]) / RUN_FILE).exists():
            raise RuntimeError(
                f"No run can start, and the rate is not at fault. {result['failed']}"
            )
        log(f"Training at {rate:g} failed: {result['failed']}")
    finished = [run for run in runs if "failed" not in run]
    if not finished:
        raise RuntimeError(
            f"Every run failed, the first by: {runs[0]['failed']} See the logs in "
            f"{output}."
        )
    best = max(finished, key=lambda run: run["held_out"])  # Ties: the first.
    rate, last = best["learning_rate"], best
    if retrain:
        last = train(rate, "all_images", [*shared, *bindings], ("eval",))
        if "failed" in last:
            raise RuntimeError(f"The run on all images failed: {last['failed']}")
    report = {
        "learning_rate": rate,
        "model_dir": last["model_dir"],
        "top1": last["eval"],
        "runs": runs,
    }
    write_json(output / REPORT_FILE, report)
    return report


def _check_arguments(
    learning_rates: Sequence[float], held_out: float, gin_params: Sequence[str]
) -> None:
    """Raise before any run if the arguments cannot lead to a choice."""
    if not learning_rates or len(set(learning_rates)) != len(learning_rates):
        raise ValueError(
            "`learning_rates` must be one or more different rates; received "
            f"{list(learning_rates)}."
        )
    if not 0 < held_out < 1:
        raise ValueError(
            "`held_out` must be a fraction of the training images between 0 and 1; "
            f"received {held_out}."
        )
    for text in gin_params:
        if text.partition("=")[0].strip().endswith(EVAL_DATA):
            raise ValueError(
                f"A binding of {EVAL_DATA} would replace that of data/held_out.gin, "
                "whose 'held_out' set chooses the rate. Bind EvalData.source or its "
                f"file pattern instead of: {text}."
            )


def claim_folder(output: epath.Path, settings: Mapping[str, Any]) -> None:
    """Write the settings into the folder; raise if it has runs of other settings."""
    if output.is_dir() and any(map(has_trained, output.iterdir())):
        check_unchanged(
            output / SETTINGS_FILE,
            settings,
            "Its runs have those settings: give another --output_dir, or restore them.",
        )
    write_json(output / SETTINGS_FILE, settings)


def train_once(
    arguments: list[str], folder: epath.Path, runner: Runner, sets: tuple[str, ...]
) -> dict[str, Any]:
    """Train and return the last top-1 of each evaluation set, or why it failed.

    Raises:
        ValueError: The run succeeded but did not measure one of the sets.
    """
    log = folder.with_name(f"{folder.name}.log")
    command = [sys.executable, *TRAIN_MODULE, *arguments, f"--model_dir={folder}"]
    code = runner(command, log)
    if code:
        reason = read_error(log) or f"exit code {code}"
        return {"model_dir": str(folder), "failed": reason}
    top1 = {row["kind"]: row["top1"] for row in read_metrics(folder) if "top1" in row}
    if missing := [name for name in sets if name not in top1]:
        raise ValueError(
            f"The run in {folder} measured {', '.join(top1) or 'nothing'} and not "
            f"{' and '.join(missing)}: a gin file binds {EVAL_DATA} to other sets, or "
            "evaluation is off. Leave out that binding, remove the run's folder and "
            "start again."
        )
    return {"model_dir": str(folder), **{name: top1[name] for name in sets}}
