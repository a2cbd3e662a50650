"""One process of a compared run: builds the model, then runs steps on request."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import json
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from vit_scaling.commands.benchmarks.alternation import CLOCKS
from vit_scaling.training.malloc import keep_freed_memory

TOTAL_STEPS = 10_000_000  # More than any measurement runs.


class Runner:
    """Trains on a batch that stays the same, with or without checkpoints."""

    def __init__(self, settings: Mapping[str, Any], model_dir: str) -> None:
        """Assemble a run.

        Args:
            settings: The command's flags for the model, changed by `step_runs.RUNS`.
            model_dir: Folder of the checkpoints.
        """
        from vit_scaling.assembly import build_run
        from vit_scaling.experiment import Experiment
        from vit_scaling.modeling.shapes import shape_named
        from vit_scaling.modeling.vit import vit
        from vit_scaling.optimization.adam import Adam
        from vit_scaling.optimization.learning_rate_schedules import Constant
        from vit_scaling.optimization.optimizer import Optimizer
        from vit_scaling.training.options import RunOptions
        from vit_scaling.training.strategy import make_strategy

        self._clock = CLOCKS[settings.get("clock", "wall")]
        self._every = settings.get("checkpoint_every", 0)
        self._steps_per_loop = settings.get("steps_per_loop", 10)
        data: Any = SameBatch(settings)
        shape = shape_named(settings["shape"])
        shape = dataclasses.replace(shape, depth=settings.get("depth", shape.depth))
        experiment = Experiment(
            make_model=functools.partial(
                vit,
                shape,
                settings["head"],
                image_size=settings["image_size"],
                classes=settings["classes"],
                dtype=settings["dtype"],
                rematerialize=settings["rematerialize"],
            ),
            make_optimizer=functools.partial(
                Optimizer, Adam(), weight_decay=((".*kernel", 1e-4),)
            ),
            schedule=Constant(1e-3, total_steps=TOTAL_STEPS),
            train_data=data,
            batch_size=settings["batch_size"],
        )
        options = RunOptions(
            jit_compile=settings["jit_compile"],
            evaluate=False,
            checkpoint_every_steps=1,  # Every checkpoint counts as scheduled.
            keep_every_steps=None,
        )
        strategy = make_strategy(
            settings.get("distribution", "one_device"),
            num_virtual_devices=settings.get("virtual_devices", 0),
        )
        run = build_run(experiment, options, model_dir=model_dir, strategy=strategy)
        run.restore()
        self._trainer, self._state = run.trainer, run.state
        self._since_save = 0

    def seconds(self, steps: int) -> float:
        """Run steps in loops, wait for checkpoints, and return the seconds.

        A checkpoint is due a number of steps after the last one, because a warm-up of a
        few steps moves the step number away from every multiple.

        Raises:
            RuntimeError: A checkpoint was due, and none was written.
        """
        import tensorflow as tf

        saved = self._state.checkpoints
        before, due = saved.steps(), self._every and steps >= self._every
        started = self._clock()
        while steps > 0:
            loop = min(steps, self._steps_per_loop)
            self._trainer.train(tf.constant(loop))
            steps -= loop
            self._since_save += loop
            if self._every and self._since_save >= self._every:
                self._state.save()
                self._since_save = 0
        saved.wait()
        taken = self._clock() - started
        if due and saved.writes and saved.steps()[-1:] == before[-1:]:
            raise RuntimeError(
                f"A checkpoint every {self._every} steps was to be measured, and none "
                f"was written up to step {self._state.step}."
            )
        return taken


class SameBatch:
    """Training data that repeats one batch."""

    num_examples = 1

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Take image size and number of classes from the command's flags."""
        self._side = settings["image_size"]
        self.classes = settings["classes"]

    def dataset(self, *, batch_size: int, input_context: Any, **_: Any) -> Any:
        """Return one replica's batch, repeated without an end."""
        import tensorflow as tf

        size = batch_size // input_context.num_replicas_in_sync
        shape = (size, self._side, self._side, 3)
        images = tf.random.stateless_uniform(shape, (0, 0), -1.0, 1.0)
        labels = tf.one_hot(tf.range(size) % self.classes, self.classes)
        batch = {"images": images, "labels": labels}
        return tf.data.Dataset.from_tensors(batch).repeat()


def main(argv: list[str]) -> None:
    """Read numbers of steps from standard input, and print the seconds they took."""
    settings = json.loads(argv[0])
    if not settings["fresh_memory"]:
        keep_freed_memory()  # As training does, before its first step.
    with tempfile.TemporaryDirectory() as model_dir:
        runner = Runner(settings, model_dir)
        for line in sys.stdin:
            print(json.dumps({"seconds": runner.seconds(int(line))}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
