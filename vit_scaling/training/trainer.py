"""Many training steps per call, as an Orbit trainer."""
# SPDX-License-Identifier: Apache-2.0

import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import orbit
import tensorflow as tf

from vit_scaling.training.divergence import LossWatch
from vit_scaling.training.profiling import Profiler
from vit_scaling.training.progress import Progress
from vit_scaling.training.step import TrainStep
from vit_scaling.training.step_times import StepTimes


class Trainer(orbit.StandardTrainer):
    """Runs a step on every replica, in a loop inside the graph.

    for _ in range(steps):
        strategy.run(step, next(batches));  global_step += 1

    Set `train_dataset`, a distributed dataset without an end, before the first call of
    `train(steps)`.
    """

    def __init__(
        self,
        step: TrainStep,
        optimizer: keras.optimizers.Optimizer,
        *,
        strategy: tf.distribute.Strategy,
        global_step: tf.Variable,
        progress: Progress,
        learning_rate: Callable[[int], float],
        watch: LossWatch,
        times: StepTimes | None,
        profiler: Profiler,
    ) -> None:
        """Create the metrics; must be called in the strategy's scope.

        Args:
            step: From one replica's batch to its scalar outputs; without Python `if`
                or `for` over tensors.
            optimizer: Its `diagnostics` are reported.
            strategy: Strategy under which the step runs.
            global_step: Counts updates; incremented once per step.
            progress: Counts images and time.
            learning_rate: From a step, 0-based, to its learning rate, for the log.
            watch: Checks the loss of each loop.
            times: Notes when steps begin. None: single steps are not timed.
            profiler: Records a profile of some steps.
        """
        options = orbit.StandardTrainerOptions(
            use_tf_function=True, use_tf_while_loop=True
        )
        super().__init__(None, options)
        self.strategy = strategy
        self.global_step = global_step
        self.optimizer = optimizer
        self.times = times
        self.profiler = profiler
        self._progress = progress
        self._watch = watch
        self._means = {
            name: keras.metrics.Mean(name=name)
            for name in ("loss", "regularization", "accuracy")
        }
        self._skipped = keras.metrics.Sum(name="skipped")
        # The step is all tensors: AutoGraph would change nothing in twice the time.
        self._step = tf.autograph.experimental.do_not_convert(step)
        self._learning_rate = learning_rate
        self._nonfinite_before = 0.0
        self._first_step = 0

    def train_loop_begin(self) -> None:
        """Reset the metrics of the last loop and start the clock."""
        for metric in (*self._means.values(), self._skipped):
            metric.reset_state()
        self._nonfinite_before = self._nonfinite_steps()
        self._first_step = int(self.global_step.numpy())
        self.profiler.before_loop(self._first_step)
        if self.times is not None:
            self.times.begin()
        self._progress.begin()

    def train_step(self, iterator: Any) -> None:
        """Run one step on every replica."""

        def replica_step(batch: Mapping[str, tf.Tensor]) -> None:
            if "skipped" in batch:
                self._skipped.update_state(batch["skipped"])
            outputs = self._step(batch)
            for name, mean in self._means.items():
                mean.update_state(outputs[name])

        times = self.times
        batch = next(iterator) if times is None else times.next_batch(iterator)
        self.strategy.run(replica_step, args=(batch,))
        self.global_step.assign_add(1)

    def train_loop_end(self) -> dict[str, float]:
        """Return the loop's metrics: losses, learning rate, norms, speed and progress.

        Losses are means over the loop, norms are those of its last step, and `skipped`
        is the number of the loop's bad records over all replicas.

        Raises:
            NonFiniteError: A step was not finite and the optimizer does not skip such
                steps, or it skipped all steps of several loops.
            DivergedError: The loss exploded, by the rules of the guard.
        """
        now = time.time()
        step = int(self.global_step.numpy())
        outputs = {name: float(mean.result()) for name, mean in self._means.items()}
        outputs["skipped"] = float(self._skipped.result())
        self._progress.end(step - self._first_step)
        self.profiler.after_loop(step)
        outputs["learning_rate"] = self._learning_rate(step - 1)
        for name, variable in self.optimizer.diagnostics.items():
            outputs[name] = float(variable.numpy())
        times = {} if self.times is None else self.times.report(now)
        outputs.update(self._progress.report(step, times.get("step_seconds_p50")))
        outputs.update(times)
        self._watch.check(
            step,
            outputs,
            steps=step - self._first_step,
            nonfinite_steps=self._nonfinite_steps() - self._nonfinite_before,
            skips_nonfinite=self.optimizer.skip_nonfinite,
        )
        return outputs

    def traces(self) -> int:
        """Return how often the loop was traced: 1 after any number of steps."""
        loop = self._train_loop_fn
        return 0 if loop is None else loop.experimental_get_tracing_count()

    def _nonfinite_steps(self) -> float:
        return float(self.optimizer.diagnostics["nonfinite_steps"].numpy())
