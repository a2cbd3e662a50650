"""Evaluate a run's checkpoints, one or each as it appears, beside its training."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import time
from collections.abc import Callable, Generator
from typing import Any

import orbit
import tensorflow as tf
from absl import logging
from etils import epath

from vit_scaling.run_record import find_run_record
from vit_scaling.training import strategy as strategies
from vit_scaling.training.agreement import sum_over_processes
from vit_scaling.training.checkpoint_files import (
    MANIFEST,
    CorruptCheckpointError,
    checkpoint_folder,
    saved_steps,
)
from vit_scaling.training.checkpoints import FOLDER, restore_model
from vit_scaling.training.evaluator import Evaluator
from vit_scaling.training.logs import RunLog, Silence

Measure = Callable[[int | None], dict[str, Any]]
TRIES = 3  # Of a checkpoint that cannot be read: its files may still be arriving.


def make_measure(
    experiment: Any,
    model_dir: epath.PathLike,
    strategy: tf.distribute.Strategy,
    *,
    averages: bool,
    jit_compile: bool | None,
) -> Measure:
    """Return the function from a step, or None for the newest, to its figures.

    Figures of the weights that training evaluates are logged under its own names. Those
    of the others (`averages` where it evaluates the last weights, or the reverse) go to
    NAME_averages or NAME_last, so that neither hides the other.

    Args:
        experiment: An `Experiment`: its model, loss, evaluation sets and evaluators.
        model_dir: Folder of the run.
        strategy: Under which it is evaluated.
        averages: Whether averaged weights are.
        jit_compile: Whether XLA compiles the step; None: on a single device.
    """
    chief = strategies.is_chief(strategy)
    with strategy.scope():
        model = experiment.make_model()
        global_step = orbit.utils.create_global_step()
        evaluator = Evaluator(
            model,
            experiment.loss,
            experiment.distributed_eval_sets(strategy),
            strategy=strategy,
            global_step=global_step,
            log=RunLog(model_dir, writes=chief),
            others=experiment.evaluators,
            always=True,
            jit_compile=strategies.xla_of(strategy, jit_compile).on,
        )
    controller = orbit.Controller(
        global_step=global_step, evaluator=evaluator, strategy=strategy
    )
    agree = sum_over_processes(strategy)

    def measure(step: int | None) -> dict[str, Any]:
        if chief:
            step = restore_model(model, model_dir, averages=averages, step=step)
        done = agree(step if chief and step is not None else 0)
        if not chief:
            restore_model(model, model_dir, averages=averages, step=done)
        global_step.assign(done)
        record = find_run_record(model_dir)  # A branch may not have written it yet.
        same = averages == (record is not None and record.evaluates_averages)
        evaluator.suffix = "" if same else "_averages" if averages else "_last"
        with contextlib.redirect_stdout(Silence()):
            return {"step": done, **controller.evaluate()}

    return measure


def measure_as_they_appear(
    measure: Measure,
    model_dir: epath.PathLike,
    timeout_seconds: float,
    last_step: int,
) -> dict[str, Any]:
    """Measure each newest checkpoint until the last one; return its figures.

    One that is damaged, or that its run removes meanwhile, is named, tried again after
    a pause, and left out if nothing comes of it.

    Raises:
        TimeoutError: Not one whole checkpoint appeared in time.
    """
    results: dict[str, Any] = {}
    appearing = new_checkpoints(
        model_dir, timeout_seconds=timeout_seconds, last_step=last_step
    )
    step = next(appearing, None)
    while step is not None:
        failed = False
        try:
            results = measure(step)
        except (CorruptCheckpointError, FileNotFoundError) as error:
            logging.error("Step %d is not evaluated: %s", step, error)
            failed = True
        try:
            step = appearing.send(failed)
        except StopIteration:
            step = None
    if not results:
        raise TimeoutError(
            f"No checkpoint appeared in `{model_dir}` within {timeout_seconds:g} s."
        )
    return results


def new_checkpoints(
    model_dir: epath.PathLike,
    *,
    timeout_seconds: float,
    last_step: int | None = None,
    poll_seconds: float = 2.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Generator[int, bool | None, None]:
    """Yield the step of each newest checkpoint as it appears, until none comes.

    A step that is written again, after damage or a roll-back, counts as new. Sent True,
    that a step could not be read, it yields it again after a pause, `TRIES` times in
    all; then something new is waited for, even if the step was the last.

    Args:
        model_dir: The folder of a run, perhaps of another process.
        timeout_seconds: How long to wait for the next before giving up.
        last_step: After this step nothing more is waited for.
        poll_seconds: Pause between looks.
        clock: Seconds, rising.
        sleep: Waits for seconds.
    """
    directory = epath.Path(model_dir) / FOLDER
    seen, waited_since, tries = (-1, 0.0), clock(), 0
    while clock() - waited_since <= timeout_seconds:
        newest = _newest(directory)
        again = newest == seen and 0 < tries < TRIES
        if newest is not None and (newest != seen or again):
            tries = tries if again else 0
            seen = newest
            failed = yield seen[0]
            tries = tries + 1 if failed else 0
            if not failed or not again:
                waited_since = clock()
            if not failed and last_step is not None and seen[0] >= last_step:
                return
            if not failed:
                continue
        sleep(min(poll_seconds, timeout_seconds))
    logging.warning("No new checkpoint in `%s` for %g s.", directory, timeout_seconds)


def _newest(directory: epath.Path) -> tuple[int, float] | None:
    """Return the newest checkpoint's step and when it was written."""
    steps = saved_steps(directory)
    if not steps:
        return None
    try:
        written = (checkpoint_folder(directory, steps[-1]) / MANIFEST).stat().mtime
    except OSError:  # Damaged, or removed since it was listed.
        written = 0.0
    return steps[-1], float(written)
