"""One process of a compared run: makes the model, then steps when it is told to."""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from vit_scaling.training.allocation import keep_freed_memory

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

TOTAL_STEPS = 10_000_000  # More than anybody measures.


class Runner:
    """A trainer on a batch that stays the same, with or without checkpoints."""

    def __init__(self, settings: Mapping[str, Any], model_dir: str) -> None:
        """Make all that a run has but its data.

        Args:
            settings: The model's flags, and of `step_runs.RUNS` what differs.
            model_dir: Where checkpoints go.
        """
        import tensorflow as tf

        from vit_scaling.modeling.vit import vit
        from vit_scaling.optimization.adam import Adam
        from vit_scaling.optimization.optimizer import Optimizer
        from vit_scaling.optimization.schedules import Constant
        from vit_scaling.training import run
        from vit_scaling.training import strategy as strategies
        from vit_scaling.training.checkpoints import Checkpoints, variables_of
        from vit_scaling.training.divergence import LossGuard, LossWatch
        from vit_scaling.training.losses import sigmoid_cross_entropy
        from vit_scaling.training.state import RunState
        from vit_scaling.training.step import make_train_step
        from vit_scaling.training.timing import StepTimes
        from vit_scaling.training.trainer import Trainer

        self._every = settings.get("checkpoint_every", 0)
        self._steps_per_loop = settings.get("steps_per_loop", 10)
        strategy = strategies.make_strategy(
            settings.get("distribution", "one_device"),
            num_virtual_devices=settings.get("virtual_devices", 0),
        )
        xla = strategies.xla_of(strategy, settings["jit_compile"])
        schedule = Constant(1e-3, total_steps=TOTAL_STEPS)
        times = StepTimes.under(strategy)
        replicas, batch = strategy.num_replicas_in_sync, settings["batch_size"]
        with strategy.scope():
            model = vit(
                settings["shape"],
                settings["head"],
                image_size=settings["image_size"],
                classes=settings["classes"],
                dtype=settings["dtype"],
                rematerialize=settings["rematerialize"],
            )
            optimizer = Optimizer(Adam(), schedule, weight_decay=((".*kernel", 1e-4),))
            optimizer.build(model.trainable_variables)
            step = tf.Variable(
                0,
                dtype=tf.int64,
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            progress = run.progress_of(model, strategy, batch, TOTAL_STEPS, None)
            self._trainer = Trainer(
                make_train_step(
                    model,
                    optimizer,
                    sigmoid_cross_entropy,
                    replicas=replicas,
                    jit_compile=xla.each_replica,
                ),
                optimizer,
                strategy.distribute_datasets_from_function(
                    lambda _: same_batches(settings, batch // replicas)
                ),
                strategy=strategy,
                global_step=step,
                progress=progress,
                learning_rate=schedule.at,
                times=times,
                jit_compile=xla.whole_step,
            )
        saved = Checkpoints(model_dir, writes=strategies.is_chief(strategy))
        watch = LossWatch(LossGuard())
        everything = variables_of(model, optimizer, step)
        self._state = RunState(everything, saved, progress, watch, seed=0)
        self._since_save = 0

    def seconds(self, steps: int) -> float:
        """Run steps in loops, wait for what is being written, return the time.

        Checkpoints are counted from the last one, not by the step's number, which a
        warm-up of a few steps moves away from every multiple.

        Raises:
            RuntimeError: A checkpoint was due, and none was written.
        """
        import tensorflow as tf

        saved = self._state.checkpoints
        before, due = saved.steps(), self._every and steps >= self._every
        started = time.perf_counter()
        while steps > 0:
            loop = min(steps, self._steps_per_loop)
            self._trainer.train(tf.constant(loop))
            steps -= loop
            self._since_save += loop
            if self._every and self._since_save >= self._every:
                self._state.save()
                self._since_save = 0
        saved.wait()
        taken = time.perf_counter() - started
        if due and saved.writes and saved.steps()[-1:] == before[-1:]:
            raise RuntimeError(
                f"A checkpoint every {self._every} steps was to be measured, and none "
                f"was written up to step {self._state.step}."
            )
        return taken


def same_batches(settings: Mapping[str, Any], size: int) -> Any:
    """Return a dataset that gives one replica's batch again and again."""
    import tensorflow as tf

    side = settings["image_size"]
    images = tf.random.stateless_uniform((size, side, side, 3), (0, 0), -1.0, 1.0)
    labels = tf.one_hot(tf.range(size) % settings["classes"], settings["classes"])
    return tf.data.Dataset.from_tensors({"images": images, "labels": labels}).repeat()


def main(argv: list[str]) -> None:
    """Answer each number of steps on standard input with the seconds they took."""
    settings = json.loads(argv[0])
    if not settings["fresh_memory"]:
        keep_freed_memory()  # As training does, before its first step.
    with tempfile.TemporaryDirectory() as model_dir:
        runner = Runner(settings, model_dir)
        for line in sys.stdin:
            print(json.dumps({"seconds": runner.seconds(int(line))}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
