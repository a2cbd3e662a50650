"""Evaluate the checkpoints of a run: one, or each as another process writes it."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from absl import logging
from etils import epath

from vit_scaling.run_record import uses_averages
from vit_scaling.training import strategy as strategies
from vit_scaling.training.checkpoint_files import (
    MANIFEST,
    CorruptCheckpointError,
    checkpoint_folder,
    saved_steps,
)
from vit_scaling.training.checkpoints import FOLDER
from vit_scaling.training.evaluator import Evaluator
from vit_scaling.training.run_weights import restore_model

TRIES = 3  # Of a checkpoint that cannot be read: its files may still be arriving.


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointEvaluation:
    """Restores checkpoints of a run one after the other and evaluates them.

    Metrics of the weights that training evaluates are logged under the set's name.
    Those of the others (averages if training evaluates the last weights, or the
    reverse) are logged as NAME_averages or NAME_last, so that neither hides the other.

    Attributes:
        model: Built as the run's model was.
        evaluator: Evaluates the model.
        global_step: Step of the weights, for the log.
        model_dir: Folder of the run.
        strategy: Strategy under which the model was built.
        averages: Whether averaged weights are evaluated. None: those that training
            evaluates.
    """

    model: keras.Model
    evaluator: Evaluator
    global_step: tf.Variable
    model_dir: epath.PathLike
    strategy: tf.distribute.Strategy
    averages: bool | None = None

    def evaluate(self, step: int | None = None) -> dict[str, Any]:
        """Evaluate the checkpoint of a step; None takes the newest complete one.

        Returns:
            {"step", SET: {"top1", "top5", "loss", "examples"}}.
        """
        restore = functools.partial(
            restore_model, self.model, self.model_dir, averages=self.averages
        )
        chief = strategies.is_chief(self.strategy)
        if chief:
            step = restore(step=step)
        # Other workers may see other checkpoints: the chief's choice holds.
        sum_over_processes = strategies.sum_over_processes(self.strategy)
        restored = sum_over_processes(step if chief and step is not None else 0)
        if not chief:
            restore(step=restored)
        self.global_step.assign(restored)
        averages = uses_averages(self.model_dir, self.averages)
        as_trained = averages == uses_averages(self.model_dir)
        other = "_averages" if averages else "_last"
        self.evaluator.suffix = "" if as_trained else other
        return {"step": restored, **self.evaluator.evaluate()}


def evaluate_as_they_appear(
    evaluate: Callable[[int], dict[str, Any]],
    model_dir: epath.PathLike,
    *,
    timeout_seconds: float,
    last_step: int | None = None,
    poll_seconds: float = 2.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Evaluate each newest checkpoint until the last step; return the last metrics.

    A step that is written again, after damage or a roll-back, counts as new. One that
    is damaged, or that its run removes meanwhile, is logged, tried again after a pause,
    `TRIES` times in all, and then skipped, even if it is the last.

    Args:
        evaluate: From a step to its metrics.
        model_dir: The folder of a run, perhaps of another process.
        timeout_seconds: How long to wait for the next checkpoint before giving up.
        last_step: After this step nothing more is waited for.
        poll_seconds: Pause between looks at the folder.
        clock: Seconds, rising.
        sleep: Waits for a number of seconds.

    Raises:
        TimeoutError: Not one complete checkpoint appeared in time.
    """
    directory = epath.Path(model_dir) / FOLDER
    results: dict[str, Any] = {}
    seen, waited_since, tries = (-1, 0.0), clock(), 0
    while clock() - waited_since <= timeout_seconds:
        newest = _newest_checkpoint(directory)
        is_retry = newest == seen and 0 < tries < TRIES
        if newest is not None and (newest != seen or is_retry):
            seen, step = newest, newest[0]
            try:
                results, tries = evaluate(step), 0
            except (CorruptCheckpointError, FileNotFoundError) as error:
                logging.error("Step %d is not evaluated: %s", step, error)
                tries = tries + 1 if is_retry else 1
            if not tries or not is_retry:
                waited_since = clock()
            if not tries and last_step is not None and step >= last_step:
                return results
            if not tries:
                continue
        sleep(min(poll_seconds, timeout_seconds))
    logging.warning("No new checkpoint in `%s` for %g s.", directory, timeout_seconds)
    if not results:
        raise TimeoutError(
            f"No checkpoint appeared in `{model_dir}` within {timeout_seconds:g} s."
        )
    return results


def _newest_checkpoint(directory: epath.Path) -> tuple[int, float] | None:
    """Return the newest checkpoint's step and when it was written."""
    steps = saved_steps(directory)
    if not steps:
        return None
    try:
        written = (checkpoint_folder(directory, steps[-1]) / MANIFEST).stat().mtime
    except OSError:  # Damaged, or removed since it was listed.
        written = 0.0
    return steps[-1], float(written)
