"""Run a model over each image of a set once, under any strategy."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from vit_scaling.batch_distribution import DistributedBatches
from vit_scaling.class_names import names_of, with_class_names
from vit_scaling.evaluation.fewshot import FeatureSet

Batch = Mapping[str, tf.Tensor]


class Images(Protocol):
    """An evaluation set, such as `vit_scaling.data.pipeline.EvalData`."""

    @property
    def classes(self) -> int:
        """Width of the multi-hot labels."""

    def dataset(
        self,
        *,
        batch_size: int,
        input_context: tf.distribute.InputContext | None = None,
    ) -> tf.data.Dataset:
        """Return batches of images, labels and mask, each image once."""


@dataclasses.dataclass(frozen=True)
class FirstBatch:
    """The first batch of a set, on which an evaluation is tried."""

    images: Images

    @property
    def classes(self) -> int:
        """Width of the multi-hot labels."""
        return self.images.classes

    def dataset(
        self,
        *,
        batch_size: int,
        input_context: tf.distribute.InputContext | None = None,
    ) -> tf.data.Dataset:
        """Return one batch of each replica."""
        replicas = input_context.num_replicas_in_sync if input_context else 1
        hosts = input_context.num_input_pipelines if input_context else 1
        return self.images.dataset(
            batch_size=batch_size, input_context=input_context
        ).take(replicas // hosts)


ImagePass = Callable[[Images], dict[str, np.ndarray]]
Compute = Callable[[tf.Tensor], tf.Tensor]


def make_pass(
    apply: Callable[[Batch], dict[str, tf.Tensor]],
    strategy: tf.distribute.Strategy,
    *,
    batch_size: int,
) -> ImagePass:
    """Return a function from a set to the rows that `apply` gives for its images.

    Args:
        apply: From one replica's batch to tensors of that many rows, with static shapes
            otherwise; they are returned as float32.
        strategy: Under which it runs; every host ends up with every row.
        batch_size: Images of all replicas together.

    The function is traced once, however often and on however many sets of the same
    shapes it is called. On one host rows come in the set's order, whatever the number
    of replicas; several hosts' rows come batch by batch. Padding is left out.
    """
    layout: dict[str, list[int]] = {}  # Shape of each name's row; set when traced.

    def on_replica(batch: Batch) -> tf.Tensor:
        values = {**apply(batch), "mask": batch["mask"]}
        layout.update(
            {name: value.shape[1:].as_list() for name, value in values.items()}
        )
        # One matrix: then several hosts have one thing to exchange.
        rows = tf.shape(batch["mask"])[0]
        flat = [
            tf.reshape(tf.cast(value, tf.float32), (rows, -1))
            for value in values.values()
        ]
        return tf.concat(flat, axis=1)  # (batch of the replica, numbers of an image)

    hosts = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)

    @tf.function
    def step(batch: Any) -> Any:
        values = strategy.run(on_replica, args=(batch,))
        return strategy.gather(values, axis=0) if hosts else values

    def run(images: Images) -> dict[str, np.ndarray]:
        dataset = DistributedBatches(
            strategy,
            lambda context: images.dataset(
                batch_size=batch_size, input_context=context
            ),
        )
        # Within a process all replicas' values are available without an exchange.
        parts = [
            part.numpy()
            for batch in dataset
            for part in strategy.experimental_local_results(step(batch))
        ]
        if not parts:
            raise ValueError("The evaluation set has no images.")
        sizes = [math.prod(shape) for shape in layout.values()]
        columns = np.split(np.concatenate(parts), np.cumsum(sizes)[:-1], axis=1)
        arrays = {
            name: values.reshape(-1, *layout[name])
            for name, values in zip(layout, columns, strict=True)
        }
        kept = arrays.pop("mask") > 0
        return {name: rows[kept] for name, rows in arrays.items()}

    return run


def layer_output(model: keras.Model, layer: str) -> Compute:
    """Return a function from images to the output of one of the model's layers.

    Args:
        model: Functional model with one input, the images.
        layer: Name of the layer.

    Raises:
        ValueError: The model has no such layer.
    """
    names = [part.name for part in model.layers]
    if layer not in names:
        raise ValueError(
            f"`layer` must be one of the model's; received {layer!r}. Known: "
            f"{', '.join(names)}."
        )
    inner = keras.Model(model.input, model.get_layer(layer).output)
    return lambda images: inner(images, training=False)


def make_feature_pass(
    compute: Compute, strategy: tf.distribute.Strategy, *, batch_size: int
) -> ImagePass:
    """Return a function from a set to its `features` (N, width) and `labels` (N,).

    Args:
        compute: From images to features (`layer_output`). Features of more than two
            axes (tokens, maps) are averaged over those in the middle.
        strategy: Under which it runs.
        batch_size: Images of all replicas together.

    The returned function raises ValueError if an image has not exactly one label.
    """

    def apply(batch: Batch) -> dict[str, tf.Tensor]:
        outputs = tf.cast(compute(batch["images"]), tf.float32)
        middle = list(range(1, outputs.shape.rank - 1))
        features = tf.reduce_mean(outputs, axis=middle) if middle else outputs
        labels = batch["labels"] > 0  # (batch, classes)
        return {
            "features": features,
            "labels": tf.argmax(labels, axis=1),
            "counts": tf.math.count_nonzero(labels, axis=1),
        }

    run_pass = make_pass(apply, strategy, batch_size=batch_size)

    def run(images: Images) -> dict[str, np.ndarray]:
        found = run_pass(images)
        check_one_label(int((found.pop("counts") != 1).sum()))
        return {**found, "labels": found["labels"].astype(np.int64)}

    return run


def check_one_label(wrong: int) -> None:
    """Raise if any images, `wrong` of them, have not exactly one label."""
    if wrong:
        raise ValueError(
            "Few-shot sets must have one label per image; received "
            f"{wrong} images with none or several."
        )


def match_classes(train: Images, test: Images) -> Images:
    """Return the test part of a few-shot set with the training part's classes.

    Raises:
        ValueError: The parts have different numbers or names of classes.
    """
    test = with_class_names(
        test,
        names_of(train),
        source="The few-shot test part",
        reference="the training part",
    )
    if train.classes != test.classes:
        raise ValueError(
            "Both parts of a few-shot set must have the same classes; received "
            f"{train.classes} (train) and {test.classes} (test)."
        )
    return test


def make_feature_set(extract: ImagePass, train: Images, test: Images) -> FeatureSet:
    """Return the features of both parts of a few-shot set.

    Args:
        extract: Result of `make_feature_pass`.
        train: Part from which the shots are taken.
        test: Part on which the accuracy is measured.

    Raises:
        ValueError: The parts have different numbers of classes, or see `FeatureSet`.
    """
    shots, tests = extract(train), extract(match_classes(train, test))
    return FeatureSet(
        shots["features"],
        shots["labels"],
        tests["features"],
        tests["labels"],
        train.classes,
    )
