"""A run between its loops: when they end, what is saved, evaluated, rolled back."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vit_scaling.training import strategy as strategies
from vit_scaling.training.divergence import DivergedError
from vit_scaling.training.logs import RunLog
from vit_scaling.training.model_flops import training_flops_per_image
from vit_scaling.training.preemption import Notice, PreemptedError
from vit_scaling.training.progress import Progress
from vit_scaling.training.state import RunState
from vit_scaling.training.timing import StepTimes


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


def stops(
    reached: Callable[[], int],
    every: int | None,
    total_steps: int,
    *,
    resumed: bool = False,
) -> Iterator[int]:
    """Yield the steps to stop at for evaluation: multiples of an interval and the last.

    Args:
        reached: Returns the step that the run is at: it may have been rolled back.
        every: The interval; None: only the last step.
        total_steps: The last step.
        resumed: Whether the run was stopped before: perhaps after a step was saved and
            before it was evaluated, so that an evaluation due there comes first.
    """
    step = reached()
    if resumed and every and 0 < step < total_steps and step % every == 0:
        yield step
    while True:
        step = reached()
        yield min(total_steps, step - step % every + every if every else total_steps)
        if reached() >= total_steps:
            return


def log_loop(
    log: RunLog,
    step: int,
    total_steps: int,
    outputs: Mapping[str, Any],
    times: StepTimes | None = None,
) -> None:
    """Record and say what a loop of steps gave, and what could make it faster."""
    log.record("train", step, outputs)
    log.say_train(step, total_steps, outputs)
    advice = None if times is None else times.advice()
    if advice is not None:
        log.say(advice)


def due(
    total_steps: int, every: int | None, at: Sequence[int] = ()
) -> Callable[[int], bool]:
    """Return whether to save at a step: multiples, single steps, start and end.

    Args:
        total_steps: The last step.
        every: The interval; None: at no multiples.
        at: The single steps.
    """
    return lambda step: (
        step in (0, total_steps, *at) or (every is not None and step % every == 0)
    )


def stop_if_asked(notice: Notice, state: RunState) -> None:
    """Save and leave if a process of the run was asked to end.

    Raises:
        PreemptedError: It was.
    """
    if notice.given():
        state.save(wait=True)
        state.agree(0)  # Who leaves before the chief has saved could take it along.
        raise PreemptedError(
            f"Asked to end by SIGTERM: saved at step {state.step}. Start the same "
            "command again to go on from there."
        )


def trained_to(
    steps: Iterator[int],
    controller: Any,
    state: RunState,
    *,
    log: RunLog,
    batches: Callable[[int], Any],
) -> Iterator[int]:
    """Train to each of the steps and yield it; go back where a loss has gone wrong.

    Args:
        steps: From `stops`: it knows where the run is after a roll-back.
        controller: An Orbit controller, whose trainer reads its batches anew then.
        state: The run.
        log: Told what happened.
        batches: From the number of the first batch to the dataset.

    Raises:
        DivergedError: The loss has gone wrong, and the run is not to be rolled back.
    """
    for step in steps:
        try:
            if state.step < step:
                controller.train(step, checkpoint_at_completion=False)
        except DivergedError as error:
            log.record("diverged", state.step, {"reason": str(error)})
            event = state.roll_back(error)
            controller.trainer.train_dataset = batches(state.batch)
            log.record("roll_back", state.step, event)
            log.say(
                f"{event['reason']} Rolled back from step {event['from_step']:,} to "
                f"{state.step:,}; {event['left_out_batches']} batches are left out."
            )
        else:
            yield step


def keep_if_best(
    state: RunState, metric: str | None, figures: Mapping[str, Mapping[str, float]]
) -> None:
    """Save and keep the run as it is if a metric is the best so far.

    Nothing is kept where the metric's set was not measured at this step, as happens
    with evaluators of a longer interval, nor for a figure that is not finite. What was
    the best by another metric, before that was bound anew, does not count.

    Args:
        state: The run.
        metric: "SET/METRIC"; the less the better if it ends in "loss"; None: nothing.
        figures: {SET: {METRIC: value}}.

    Raises:
        ValueError: The set was measured, and has no such figure.
    """
    if metric is None:
        return
    name, _, key = metric.partition("/")
    if name not in figures:
        return
    if key not in figures[name]:
        known = [f"{one}/{each}" for one, values in figures.items() for each in values]
        raise ValueError(
            f"`best_metric` must be one of {', '.join(known)}; received {metric!r}."
        )
    value = float(figures[name][key])
    best = state.checkpoints.best()
    sign = -1 if key.endswith("loss") else 1
    if best is not None and best["metric"] == metric and math.isfinite(best["value"]):
        better = sign * value > sign * best["value"]
    else:
        better = True
    if better and math.isfinite(value):
        state.save()
        state.checkpoints.mark_best(state.step, metric, value)


def evaluated_at(
    steps: Iterator[int],
    evaluate: Callable[[], Any],
    state: RunState,
    *,
    weights: Callable[[], contextlib.AbstractContextManager[Any]],
    best_metric: str | None,
    notice: Notice,
) -> Any:
    """Evaluate at each of the steps and return the last figures.

    Args:
        steps: From `trained_to`.
        evaluate: Returns {SET: {METRIC: value}}.
        state: The run.
        weights: Opens a `with` in which the model has the weights to evaluate.
        best_metric: As `keep_if_best` takes it.
        notice: Looked at before each loop: making a run or evaluating may take long.

    Raises:
        PreemptedError: The run was asked to end before its first loop, or in an
            evaluation that is not its last.
    """
    stop_if_asked(notice, state)  # While the run was being made.
    figures: Any = {}
    for _ in steps:
        with weights():
            figures = evaluate()
        keep_if_best(state, best_metric, figures)
        if state.step < state.progress.total_steps:  # Else there is nothing left to do.
            stop_if_asked(notice, state)
    return figures


def progress_of(
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    batch_size: int,
    total_steps: int,
    peak_flops_per_core: float | None,
) -> Progress:
    """Return the count of a run's progress; operations are counted if a peak is known.

    Args:
        model: Whose operations they are.
        strategy: Over whose cores the images are spread.
        batch_size: Images of one step, over all replicas.
        total_steps: Steps of the whole run.
        peak_flops_per_core: What a core can do in a second, or None.
    """
    known = peak_flops_per_core is not None
    return Progress(
        batch_size=batch_size,
        total_steps=total_steps,
        cores=strategies.cores(strategy),
        replicas=strategy.num_replicas_in_sync,
        flops_per_image=training_flops_per_image(model) if known else None,
        peak_flops_per_core=peak_flops_per_core,
    )


def announce(
    log: RunLog,
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    step: int,
    total_steps: int,
    *,
    images: int,
    xla: bool,
) -> None:
    """Say what is going to be trained, on what, and from where."""
    parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    start = f"resumes at step {step:,}" if step else "starts"
    log.say(
        f"{model.name}: {parameters:,} parameters, {images:,} training images; "
        f"{type(strategy).__name__}, {strategy.num_replicas_in_sync} replica(s), XLA "
        f"{'on' if xla else 'off'}; {start}, {total_steps:,} steps in all"
    )
