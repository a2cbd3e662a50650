"""One run of the parity study with this package's model, optimizer and loop."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from vit_scaling.commands.benchmarks import parity_data


class TrainSet:
    """The training images as the loop reads them: batches from a step on."""

    image_size = parity_data.IMAGE_SIZE
    value_range = (-1.0, 1.0)

    def __init__(self, settings: parity_data.Settings) -> None:
        """Take the images of `settings`."""
        self._settings = settings
        self.classes = settings.classes
        self.num_examples = len(settings.data.train_labels)

    def describe(self) -> str:
        """Return what a run that resumes must have been trained on."""
        return f"{self.num_examples} images of {self._settings.images}"

    def dataset(self, *, batch_size: int, start_step: int = 0, **_: Any) -> Any:
        """Return the batches from `start_step` on."""
        import tensorflow as tf

        settings = dataclasses.replace(self._settings, batch_size=batch_size)

        def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for step in range(start_step, settings.steps(settings.epochs)):
                yield parity_data.train_batch(settings, step)

        side = parity_data.IMAGE_SIZE
        spec = (
            tf.TensorSpec([batch_size, side, side, 3], tf.uint8),
            tf.TensorSpec([batch_size], tf.int64),
        )
        pairs = tf.data.Dataset.from_generator(batches, output_signature=spec)
        return pairs.map(functools.partial(_example, self.classes)).prefetch(2)


class TestSet:
    """The test images, in batches."""

    image_size, value_range = TrainSet.image_size, TrainSet.value_range

    def __init__(self, settings: parity_data.Settings) -> None:
        """Take the images of `settings`."""
        from vit_scaling.image_preprocessing import CentralCrop

        self._data, self.classes = settings.data, settings.classes
        self.preprocess = CentralCrop()  # Written to the run's record.
        self.num_examples = len(self._data.test_labels)

    def dataset(self, *, batch_size: int, **_: Any) -> Any:
        """Return every image once; the mask is 1 for all."""
        import tensorflow as tf

        arrays = self._data.test_images, self._data.test_labels
        batches = tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size)
        return batches.map(
            lambda images, labels: {
                **_example(self.classes, images, labels),
                "mask": tf.ones_like(labels, tf.float32),
            }
        )


def _example(classes: int, images: Any, labels: Any) -> dict[str, Any]:
    import tensorflow as tf

    pixels = tf.cast(images, tf.float32) / 127.5 - 1.0
    return {"images": pixels, "labels": tf.one_hot(labels, classes)}


def make_experiment(settings: parity_data.Settings) -> Any:
    """Return the run's `Experiment`: the paper's model, loss and optimizer."""
    from vit_scaling.experiment import Experiment
    from vit_scaling.modeling.shapes import ViTShape
    from vit_scaling.modeling.vit import vit
    from vit_scaling.optimization.adafactor import Adafactor
    from vit_scaling.optimization.learning_rate_schedules import ReciprocalSqrt
    from vit_scaling.optimization.optimizer import Optimizer
    from vit_scaling.optimization.weight_decay import head_and_body

    width = settings.width
    return Experiment(
        make_model=functools.partial(
            vit,
            ViTShape(settings.patch, width, settings.depth, 4 * width, settings.heads),
            "map",
            image_size=parity_data.IMAGE_SIZE,
            classes=settings.classes,
            seed=settings.seed,
        ),
        make_optimizer=functools.partial(
            Optimizer,
            Adafactor(momentum_dtype=settings.momentum_dtype),
            weight_decay=head_and_body(settings.head_decay, settings.body_decay),
            clip_norm=settings.clip_norm,
        ),
        schedule=ReciprocalSqrt(
            base_learning_rate=settings.learning_rate,
            total_steps=settings.steps(settings.epochs),
            warmup_steps=settings.steps(settings.warmup_epochs),
            timescale_steps=settings.steps(settings.timescale_epochs),
            cooldown_steps=settings.steps(settings.cooldown_epochs),
        ),
        train_data=TrainSet(settings),  # type: ignore[arg-type]
        eval_data={"test": TestSet(settings)},  # type: ignore[dict-item]
        batch_size=settings.batch_size,
        eval_batch_size=1000,
    )


def train(settings: parity_data.Settings) -> list[float]:
    """Train, or continue; return the test images' top-1 accuracy after each epoch."""
    from vit_scaling import runs
    from vit_scaling.training.logs import read_metrics
    from vit_scaling.training.options import RunOptions
    from vit_scaling.training.strategy import make_strategy

    options = RunOptions(
        seed=settings.seed,
        checkpoint_every_steps=settings.epoch_steps,
        eval_every_steps=settings.epoch_steps,
        keep_last=1,
        keep_every_steps=None,
    )
    runs.train(
        make_experiment(settings),
        options,
        model_dir=settings.folder,
        strategy=make_strategy("one_device"),
    )
    return [row["top1"] for row in read_metrics(settings.folder, "test")]


if __name__ == "__main__":
    SETTINGS = parity_data.Settings(**json.loads(sys.argv[1]))
    SETTINGS.save_result(train(SETTINGS))
