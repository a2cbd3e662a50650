"""Many training steps per call, as an Orbit trainer."""
# SPDX-License-Identifier: Apache-2.0

import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import orbit
import tensorflow as tf

from vit_scaling.training.divergence import LossGuard, LossWatch
from vit_scaling.training.profiling import Profiler
from vit_scaling.training.progress import Progress
from vit_scaling.training.timing import StepTimes

TrainStep = Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]


class Trainer(orbit.StandardTrainer):
    """Run a step on every replica, in a loop inside the graph.

    for each of n steps:
        strategy.run(step, next(batches));  global_step += 1
    """

    def __init__(
        self,
        step: TrainStep,
        optimizer: keras.optimizers.Optimizer,
        dataset: Any,
        *,
        strategy: tf.distribute.Strategy,
        global_step: tf.Variable,
        progress: Progress,
        learning_rate: Callable[[int], float],
        watch: LossWatch | None = None,
        times: StepTimes | None = None,
        profiler: Profiler | None = None,
        jit_compile: bool = False,
    ) -> None:
        """Take the parts; must be called in the strategy's scope.

        Args:
            step: From one replica's batch to its scalar outputs; without Python `if`
                or `for` over tensors.
            optimizer: Whose `diagnostics` and learning rate are reported.
            dataset: A distributed dataset, infinite.
            strategy: Under which the step runs.
            global_step: Counts updates; incremented once per step.
            progress: Told when loops begin and end.
            learning_rate: From a step, 0-based, to its learning rate, for the log.
            watch: Judges each loop's loss; None: by the default `LossGuard`.
            times: Notes when steps begin; None: nothing is known of single steps.
            profiler: Records what it is asked for; None: nothing.
            jit_compile: Whether XLA compiles the whole step: on a single device only,
                since it cannot compile the sum over replicas.
        """
        options = orbit.StandardTrainerOptions(
            use_tf_function=True, use_tf_while_loop=True
        )
        super().__init__(dataset, options)
        self.strategy = strategy
        self.global_step = global_step
        self.progress = progress
        self.optimizer = optimizer
        self._watch = watch or LossWatch(LossGuard())
        self._times = times
        self._profiler = profiler
        self._means = {
            name: keras.metrics.Mean(name=name) for name in ("loss", "regularization")
        }
        self._skipped = keras.metrics.Sum(name="skipped")
        if jit_compile:
            step = tf.function(step, jit_compile=True, autograph=False)
        # The step is all tensors: AutoGraph would change nothing in twice the time.
        self._step = tf.autograph.experimental.do_not_convert(step)
        self._learning_rate = learning_rate
        self._nonfinite_before = 0.0
        self._first_step = 0

    def train_loop_begin(self) -> None:
        """Forget the last loop's means and start the clock."""
        for metric in (*self._means.values(), self._skipped):
            metric.reset_state()
        self._nonfinite_before = self._nonfinite_steps()
        self._first_step = int(self.global_step.numpy())
        if self._profiler is not None:
            self._profiler.before_loop(self._first_step)
        if self._times is not None:
            self._times.begin()
        self.progress.begin()

    def train_step(self, iterator: Any) -> None:
        """Run one step on every replica."""

        def replica_step(batch: Mapping[str, tf.Tensor]) -> None:
            if "skipped" in batch:
                self._skipped.update_state(batch["skipped"])
            outputs = self._step(batch)
            for name, mean in self._means.items():
                mean.update_state(outputs[name])

        times = self._times
        batch = next(iterator) if times is None else times.next_batch(iterator)
        self.strategy.run(replica_step, args=(batch,))
        self.global_step.assign_add(1)

    def train_loop_end(self) -> dict[str, float]:
        """Return the loop's figures: losses, learning rate, norms, speed and progress.

        Losses are means over the loop; norms are those of its last step; `skipped`
        counts the loop's bad records, over all replicas.

        Raises:
            NonFiniteError: A step was not finite and the optimizer does not skip such,
                or it skipped all steps of several loops.
            DivergedError: The loss exploded, by the guard's rules.
        """
        now = time.time()
        step = int(self.global_step.numpy())
        outputs = {name: float(mean.result()) for name, mean in self._means.items()}
        outputs["skipped"] = float(self._skipped.result())
        self.progress.end(step - self._first_step)
        if self._profiler is not None:
            self._profiler.after_loop(step)
        outputs["learning_rate"] = self._learning_rate(step - 1)
        for name, variable in self.optimizer.diagnostics.items():
            outputs[name] = float(variable.numpy())
        outputs.update(self.progress.report(step))
        if self._times is not None:
            outputs.update(self._times.report(now))
        self._watch.check(
            step,
            outputs,
            steps=step - self._first_step,
            nonfinite_steps=self._nonfinite_steps() - self._nonfinite_before,
            left_out=self.optimizer.skip_nonfinite,
        )
        return outputs

    def traced(self) -> int:
        """Return how often the loop was traced: 1 after any number of steps."""
        loop = self._train_loop_fn
        return 0 if loop is None else loop.experimental_get_tracing_count()

    def _nonfinite_steps(self) -> float:
        variable = self.optimizer.diagnostics["nonfinite_steps"]
        return float(variable.numpy())
