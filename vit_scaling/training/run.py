"""A run under its strategy: what is checkpointed, and what happens between loops."""
# SPDX-License-Identifier: Apache-2.0

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from etils import epath

from vit_scaling.training.checkpoint_files import saved_steps
from vit_scaling.training.checkpoints import FOLDER, Checkpoints, variables_of
from vit_scaling.training.logs import RunLog
from vit_scaling.training.progress import Progress


class RunState:
    """Everything that a run resumes from, and the rules for saving it."""

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        global_step: tf.Variable,
        checkpoints: Checkpoints,
        progress: Progress,
        *,
        seed: int,
    ) -> None:
        """Take the parts; the optimizer must be built."""
        self.variables = {
            **variables_of(model, optimizer),
            "run/global_step": global_step,
        }
        self.global_step = global_step
        self.checkpoints = checkpoints
        self.progress = progress
        self.seed = seed

    @property
    def step(self) -> int:
        """Updates done."""
        return int(self.global_step.numpy())

    def restore(self) -> bool:
        """Go back to the newest whole checkpoint; return whether there was one.

        Raises:
            ValueError: It is of another model, optimizer or seed.
        """
        state = self.checkpoints.restore(self.variables)
        if state is None:
            return False
        if state["seed"] != self.seed:
            raise ValueError(
                f"`seed` must be the one that the run began with, {state['seed']}, or "
                f"its batches would change; received {self.seed}. Pass "
                f"--seed={state['seed']}, or take a new --model_dir."
            )
        self.progress.restore(state)
        self.checkpoints.discard_after(self.step)
        return True

    def save(self, *, wait: bool = False) -> None:
        """Save the run as it is now; unless waited for, perhaps in the background."""
        state = {**self.progress.state(), "seed": self.seed}
        self.checkpoints.save(self.step, self.variables, state)
        if wait:
            self.checkpoints.wait()


def check_batch(
    batch_size: int, strategy: tf.distribute.Strategy, *, name: str = "batch_size"
) -> None:
    """Refuse a batch that the replicas cannot share evenly; `name` is the argument's.

    Raises:
        ValueError: It is not a positive multiple of the number of replicas.
    """
    replicas = strategy.num_replicas_in_sync
    if not isinstance(batch_size, int) or batch_size < 1 or batch_size % replicas:
        raise ValueError(
            f"`{name}` must be a positive multiple of the {replicas} replicas that "
            f"share it; received {batch_size!r}."
        )


def check_averages(optimizer: keras.optimizers.Optimizer, *, wanted: bool) -> None:
    """Refuse to evaluate averages that the optimizer will not keep.

    Raises:
        ValueError: They are wanted, and it keeps none.
    """
    if wanted and getattr(optimizer, "average_decay", None) is None:
        raise ValueError(
            "`evaluate_averages` needs averaged weights; bind the optimizer's "
            "`average_decay` (0.9999 for ViT-G's fine-tuning)."
        )


def check_best_metric(
    metric: str | None, sets: Iterable[str], others: Iterable[str]
) -> None:
    """Refuse a metric that no evaluation will measure, before anything is trained.

    Args:
        metric: "SET/METRIC" or None.
        sets: Names of the evaluation sets, which measure top1, top5 and loss.
        others: Names of further evaluators, whose figures are known once they ran.

    Raises:
        ValueError: `metric` names none of them.
    """
    known = [f"{name}/{key}" for name in sets for key in ("top1", "top5", "loss")]
    known += [f"{name}/…" for name in others]
    name, slash, _ = (metric or "").partition("/")
    if metric is not None and not {metric, f"{name}{slash}…"} & set(known):
        told = ", ".join(known) or "None, since nothing is evaluated"
        raise ValueError(f"`best_metric` must be {told}; received {metric!r}.")


def loop_length(
    steps_per_loop: int,
    total_steps: int,
    *,
    every: Mapping[str, int | None],
    at: Sequence[int] = (),
) -> Callable[[int], int]:
    """Return the function from a step to how many steps the next loop runs.

    Loops end at every multiple of each interval, so that what happens there happens at
    the same steps however often the run was stopped.

    Args:
        steps_per_loop: At most this many.
        total_steps: The last step.
        every: Intervals in steps by name; None never stops.
        at: Single steps at which a loop must end.

    Raises:
        ValueError: An interval is less than 1.
    """
    for name, number in {"steps_per_loop": steps_per_loop, **every}.items():
        if number is not None and number < 1:
            raise ValueError(f"`{name}` must be at least 1 step; received {number}.")
    intervals = [steps_per_loop, *(number for number in every.values() if number)]

    def steps_from(step: int) -> int:
        ends = [step - step % interval + interval for interval in intervals]
        ends += [single for single in at if single > step]
        return max(1, min(*ends, total_steps) - step)

    return steps_from


def stops(step: int, every: int | None, total_steps: int) -> Iterator[int]:
    """Yield the multiples of an interval after `step`, and at the end the last step."""
    while True:
        step = min(total_steps, step - step % every + every if every else total_steps)
        yield step
        if step == total_steps:
            return


def log_loop(
    log: RunLog, step: int, total_steps: int, outputs: Mapping[str, Any]
) -> None:
    """Record and say what a loop of steps gave."""
    log.record("train", step, outputs)
    log.say_train(step, total_steps, outputs)


def save_if_due(
    state: RunState, total_steps: int, every: int, at: Sequence[int] = ()
) -> None:
    """Save at multiples of an interval, at single steps and at the end."""
    if state.step % every == 0 or state.step in at or state.step == total_steps:
        state.save()


def keep_if_best(
    state: RunState, metric: str | None, figures: Mapping[str, Mapping[str, float]]
) -> None:
    """Save and keep the run as it is if a metric is the best so far.

    Args:
        state: The run.
        metric: "SET/METRIC"; the less the better if it ends in "loss"; None: nothing.
        figures: {SET: {METRIC: value}}.

    Raises:
        ValueError: No such figure was measured.
    """
    if metric is None:
        return
    name, _, key = metric.partition("/")
    if key not in figures.get(name, {}):
        known = [f"{one}/{each}" for one, values in figures.items() for each in values]
        raise ValueError(
            f"`best_metric` must be one of {', '.join(known)}; received {metric!r}."
        )
    value = float(figures[name][key])
    best = state.checkpoints.best()
    sign = -1 if key.endswith("loss") else 1
    if best is None or sign * value > sign * best["value"]:
        state.save()
        state.checkpoints.mark_best(state.step, metric, value)


def new_checkpoints(
    model_dir: epath.PathLike,
    *,
    timeout_seconds: float,
    last_step: int | None = None,
    poll_seconds: float = 2.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[int]:
    """Yield the step of each newest checkpoint as it appears, until none comes.

    Args:
        model_dir: The folder of a run, perhaps of another process.
        timeout_seconds: How long to wait for the next before giving up.
        last_step: After this step nothing more is waited for.
        poll_seconds: Pause between looks.
        clock: Seconds, rising.
        sleep: Waits for seconds.
    """
    directory = epath.Path(model_dir) / FOLDER
    seen, waited_since = -1, clock()
    while clock() - waited_since <= timeout_seconds:
        steps = saved_steps(directory)
        if steps and steps[-1] > seen:
            seen = steps[-1]
            yield seen
            waited_since = clock()
            if last_step is not None and seen >= last_step:
                return
        else:
            sleep(min(poll_seconds, timeout_seconds))
    logging.warning("No new checkpoint in `%s` for %g s.", directory, timeout_seconds)


def announce(
    log: RunLog,
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    *,
    images: int,
    step: int,
    total_steps: int,
    jit_compile: bool,
) -> None:
    """Say what is going to be trained, on what, and from where."""
    parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    start = f"resumes at step {step:,}" if step else "starts"
    log.say(
        f"{model.name}: {parameters:,} parameters, {images:,} training images; "
        f"{type(strategy).__name__}, {strategy.num_replicas_in_sync} replica(s), XLA "
        f"{'on' if jit_compile else 'off'}; {start}, {total_steps:,} steps in all"
    )
