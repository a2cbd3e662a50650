"""The loop of a run: train, log, roll back, save, stop if preempted, evaluate."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import keras
import tensorflow as tf

from vit_scaling.training.divergence import DivergedError
from vit_scaling.training.evaluator import Evaluator, Metrics
from vit_scaling.training.logs import RunLog
from vit_scaling.training.options import RunOptions
from vit_scaling.training.preemption import PreemptedError, PreemptionNotice
from vit_scaling.training.run_state import RunState
from vit_scaling.training.trainer import Trainer


@dataclasses.dataclass(kw_only=True)
class Run:
    """A run whose parts are built: restore it, then train it.

    Attributes:
        options: When to save and evaluate, and what to keep.
        model: The model that is trained.
        trainer: Runs loops of steps.
        evaluator: Evaluates the model.
        state: Everything that a checkpoint keeps.
        log: Where metrics and messages go.
        preemption: Whether SIGTERM came.
        batches_from: From the number of the first batch and the version of the order
            to the training data.
        evaluated_weights: Context manager in which the model has the weights to
            evaluate, such as averages.
        initial_weights: Record of the weights that the run started from.
        resumed: Whether the run continues from a checkpoint.
        check_lock: Raises if another process has taken over the run's folder.
    """

    options: RunOptions
    model: keras.Model
    trainer: Trainer
    evaluator: Evaluator
    state: RunState
    log: RunLog
    preemption: PreemptionNotice
    batches_from: Callable[[int, int], Any]
    evaluated_weights: Callable[[], contextlib.AbstractContextManager[Any]]
    initial_weights: Mapping[str, Any] | None = None
    resumed: bool = False
    check_lock: Callable[[], None] = lambda: None

    @property
    def step(self) -> int:
        """Number of updates done."""
        return self.state.step

    @property
    def total_steps(self) -> int:
        """The run's last step."""
        return self.state.progress.total_steps

    def restore(self) -> None:
        """Restore the newest complete checkpoint, if any, and open the data there."""
        self.resumed = self.state.restore()
        self.open_data()

    def open_data(self) -> None:
        """Let the trainer read from the next batch on."""
        self.trainer.train_dataset = self.batches_from(
            self.state.batch, self.state.order_version
        )

    def train(self) -> Metrics:
        """Train to the last step and return the metrics of the last evaluation.

        Raises:
            DivergedError: The loss diverged, and the options do not allow (another)
                roll-back.
            PreemptedError: SIGTERM came; the run is saved.
            RunLockedError: Another process has taken over the run's folder.
            OSError: A checkpoint or the log could not be written.
        """
        metrics: Metrics = {}
        self.stop_if_preempted()  # SIGTERM may have come while the run was built.
        if self.resumed and self.is_evaluation_due():
            metrics = self.evaluate()  # Stopped between this checkpoint and that.
        if self.step < self.total_steps:
            steps = self.options.loop_length(self.step, self.total_steps)
            self.log.say(
                f"Compiling the step; the first report is that of step "
                f"{self.step + steps:,}."
            )
        while self.step < self.total_steps:
            steps = self.options.loop_length(self.step, self.total_steps)
            try:
                outputs = self.trainer.train(tf.constant(steps))
            except DivergedError as error:
                self.check_lock()
                self.roll_back(error)
                continue
            self.check_lock()
            self.log_loop(outputs)
            self.state.checkpoints.check()
            if self.options.is_checkpoint_due(self.step, self.total_steps):
                self.state.save()
            self.stop_if_preempted()
            if self.is_evaluation_due():
                metrics = self.evaluate()
        return metrics

    def is_evaluation_due(self) -> bool:
        """Whether the run is evaluated at its present step."""
        return self.options.is_evaluation_due(self.step, self.total_steps)

    def evaluate(self) -> Metrics:
        """Evaluate, and save the run if it is the best so far.

        Raises:
            PreemptedError: SIGTERM came, and the run is not finished.
        """
        with self.evaluated_weights():
            metrics = self.evaluator.evaluate()
        save_if_best(self.state, self.options.best_metric, metrics)
        if self.step < self.total_steps:  # An evaluation may take long.
            self.stop_if_preempted()
        return metrics

    def roll_back(self, error: DivergedError) -> None:
        """Go back to the newest scheduled checkpoint, and leave out the bad batches.

        Raises:
            DivergedError: The options do not allow it, or not as often.
        """
        self.log.record("diverged", self.step, {"reason": str(error)})
        event = self.state.roll_back(error)
        self.open_data()
        if self.log.writes:
            self.log.tensorboard.restart(self.step, evaluates=False)
        self.log.record("roll_back", self.step, event)
        self.log.say(
            f"{event['reason']} Rolled back from step {event['from_step']:,} to "
            f"{self.step:,}; {event['left_out_batches']} batches are left out."
        )

    def stop_if_preempted(self) -> None:
        """Save and stop if any process of the run received SIGTERM.

        Raises:
            PreemptedError: One did.
        """
        if self.preemption.is_given():
            self.state.save(wait=True)
            self.state.wait_for_all_processes()
            raise PreemptedError(
                f"SIGTERM was received: saved at step {self.step}. Start the same "
                "command again to continue."
            )

    def log_loop(self, outputs: Mapping[str, float]) -> None:
        """Record and print the metrics of a loop, and advice on its speed."""
        self.log.record("train", self.step, outputs)
        self.log.say_train(self.step, self.total_steps, outputs)
        advice = self.trainer.times.advice() if self.trainer.times else None
        if advice is not None:
            self.log.say(advice)


def save_if_best(state: RunState, metric: str | None, metrics: Metrics) -> None:
    """Save and keep the run's present state if a metric is the best so far.

    Nothing is saved if the metric's set was not evaluated at this step, as happens with
    evaluators of a longer interval, or if the value is not finite. A best value of
    another metric, bound earlier, does not count.

    Args:
        state: State of the run.
        metric: "SET/METRIC"; less is better if it ends in "loss". None: do nothing.
        metrics: {SET: {METRIC: value}}.

    Raises:
        ValueError: The set was evaluated and has no such metric.
    """
    if metric is None:
        return
    name, _, key = metric.partition("/")
    if name not in metrics:
        return
    check_best_metric_known(metric, metrics)
    value = float(metrics[name][key])
    if not math.isfinite(value):
        return
    best = state.checkpoints.best()
    if best is not None and best["metric"] == metric:
        best_value, sign = best["value"], -1 if key.endswith("loss") else 1
        is_number = best_value is not None and math.isfinite(best_value)
        if is_number and sign * value <= sign * best_value:
            return
    state.save()
    state.checkpoints.mark_best(state.step, metric, value)


def check_best_metric_known(
    metric: str | None, measured: Mapping[str, Collection[str]]
) -> None:
    """Check that a set or evaluator measures a metric.

    Args:
        metric: "SET/METRIC" or None.
        measured: Names of the metrics by set; a set that is missing is not checked.

    Raises:
        ValueError: The set has no such metric.
    """
    name, _, key = (metric or "").partition("/")
    if name in measured and key not in measured[name]:
        known = [f"{one}/{k}" for one, keys in measured.items() for k in sorted(keys)]
        raise ValueError(
            f"`best_metric` must be one of {', '.join(known)}; received {metric!r}."
        )


def describe_run(run: Run, *, images: int, xla: bool) -> str:
    """Return a line that says what is trained, on what hardware, from which step."""
    trained = sum(math.prod(v.shape) for v in run.model.trainable_variables)
    frozen = sum(math.prod(v.shape) for v in run.model.non_trainable_variables)
    # Seeds of masks are not trained either, but they are few.
    kept = f" of {trained + frozen:,}" if frozen > trained // 100 else ""
    strategy = run.trainer.strategy
    start = f"resumes at step {run.step:,}" if run.step else "starts"
    return (
        f"{run.model.name}: {trained:,}{kept} parameters, {images:,} training images; "
        f"{type(strategy).__name__}, {strategy.num_replicas_in_sync} replica(s), XLA "
        f"{'on' if xla else 'off'}; {start}, {run.total_steps:,} steps in all"
    )
