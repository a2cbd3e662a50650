"""Evaluators that run during training: few-shot accuracy, and mapped classes."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from vit_scaling.argument_types import (
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_arguments,
)
from vit_scaling.evaluation import fewshot
from vit_scaling.evaluation.images import (
    Batch,
    FirstBatch,
    ImagePass,
    Images,
    check_one_label,
    layer_output,
    make_feature_pass,
    make_feature_set,
    make_pass,
    match_classes,
)
from vit_scaling.evaluation.label_maps import LabelMap
from vit_scaling.evaluation.probes import linear_probe, nearest_neighbours


@dataclasses.dataclass(frozen=True)
class FewShotSet:
    """A named set with a part to take shots from and a part to test on.

    Attributes:
        name: Prefix of the metrics' names, such as "pets" in "pets_10shot".
        train: Images to take shots from (an `EvalData`).
        test: Images to measure the accuracy on (an `EvalData`).
        shots: Replaces the evaluator's for this set; None keeps them. Birds (2010)
            has 15 training images per class, too few for 25 shots.
    """

    name: str
    train: Images
    test: Images
    shots: Sequence[PositiveInt] | None = None


# Names of the probes of the whole training part, and how they predict the test part.
PROBES: dict[str, Callable[[fewshot.FeatureSet], np.ndarray]] = {
    "linear_probe": lambda data: linear_probe(data)[0],
    "neighbours": nearest_neighbours,
}


class _PeriodicEvaluator:
    """Base class: runs every `interval_steps`, compiled once for each model."""

    def __init__(self, name: str, interval_steps: int) -> None:
        self.name, self.interval_steps = name, interval_steps
        # The compiled pass is made again only for another model or strategy.
        self._get_pass = functools.lru_cache(maxsize=1)(self._make_pass)

    def check(self) -> None:
        """Raise, before training begins, if the evaluator cannot run."""

    def check_model(self, model: keras.Model) -> Collection[str]:
        """Raise if the evaluator cannot run on the model; return the metrics' names."""
        raise NotImplementedError

    def check_batch(self, model: keras.Model, strategy: tf.distribute.Strategy) -> None:
        """Run the pass on the first batch of every set."""
        run = self._get_pass(model, strategy)
        for images in self._all_images():
            run(FirstBatch(images))

    def _all_images(self) -> Iterator[Images]:
        """Yield the sets that are evaluated."""
        raise NotImplementedError

    def _make_pass(
        self, model: keras.Model, strategy: tf.distribute.Strategy
    ) -> ImagePass:
        """Return the compiled pass over images."""
        raise NotImplementedError


class FewShot(_PeriodicEvaluator):
    """Few-shot accuracies of a model on any number of sets, at an interval of steps.

    Metrics, by set and shots: `pets_10shot` (mean over the seeds),
    `pets_10shot_half_interval` (half of the 95% interval by Student's t) and
    `pets_10shot_seed0` …; with several strengths all but the first end in `_l2_512`.

    Example: bind `Experiment.evaluators = [@FewShot()]` (gin/evaluation/fewshot.gin).
    """

    @check_arguments
    def __init__(
        self,
        sets: Sequence[FewShotSet],
        *,
        interval_steps: PositiveInt = 25_000,
        shots: Sequence[PositiveInt] = fewshot.SHOTS,
        seeds: Sequence[NonNegativeInt] = fewshot.SEEDS,
        strengths: Sequence[PositiveFloat] = (fewshot.STRENGTH,),
        layer: str = "pre_logits",
        batch_size: PositiveInt = 1024,
        probes: Sequence[Literal["linear_probe", "neighbours"]] = (),
        name: str = "fewshot",
    ) -> None:
        """Store the sets and the settings, and check them.

        Args:
            sets: The sets, with different names.
            interval_steps: Training steps between evaluations (25,000 is the default
                of the authors' code; their configuration of g/14 has 10,000).
            shots: Training images per class (1, 5, 10, 25 in §2).
            seeds: Seeds of the choice of images (the authors' three).
            strengths: Strengths of the L2 regularisation (1024, the authors').
            layer: Name of the layer whose outputs are the features.
            batch_size: Images over all replicas.
            probes: Further predictors fitted to the entire training part, any of
                "linear_probe" and "neighbours".
            name: Name under which the metrics are logged.

        Raises:
            ValueError: `sets` is empty or two sets have the same name, or another
                argument has no valid value.
        """
        names = [few_shot_set.name for few_shot_set in sets]
        if not names or len(set(names)) != len(names):
            raise ValueError(
                "`sets` must be one or more few-shot sets of different names; received "
                f"names {names}."
            )
        fewshot.check_numbers(seeds=seeds, strengths=strengths)
        own_shots = [part.shots for part in sets if part.shots is not None]
        for numbers in (shots, *own_shots):
            fewshot.check_numbers(shots=numbers)
        super().__init__(name, interval_steps)
        self._sets, self._shots = tuple(sets), shots
        self._seeds, self._strengths = seeds, strengths
        self._probes = tuple(probes)
        self._layer, self._batch_size = layer, batch_size

    def check(self) -> None:
        """Raise, before training begins, if a set has too few images for its shots.

        Only the total is checked: the images of each class are not counted.

        Raises:
            ValueError: A set has fewer images than the shots of all its classes.
            FileNotFoundError: The files of a set are missing.
        """
        for part in self._sets:
            most = max(self._shots if part.shots is None else part.shots)
            available = getattr(part.train, "num_examples", None)
            needed = most * part.train.classes
            if available is not None and available < needed:
                raise ValueError(
                    f"`shots`={most} of the {part.train.classes} classes of "
                    f"{part.name!r} are {needed} training images; the set has "
                    f"{available}. Take fewer shots, of all sets or "
                    "(FewShotSet.shots) of this one."
                )

    def check_model(self, model: keras.Model) -> Collection[str]:
        """Check the layer, and the first image of both parts of every set.

        Raises:
            ValueError: The model has no such layer, an image does not fit it or has not
                one label, or the parts of a set have different classes.
        """
        layer_output(model, self._layer)
        random = np.random.default_rng(0)
        names: list[str] = []
        for part in self._sets:
            for images in (part.train, match_classes(part.train, part.test)):
                batch = _read_first_image(images, model, part.name)
                check_one_label(int(tf.math.count_nonzero(batch["labels"])) != 1)
            shots = self._shots if part.shots is None else part.shots
            labels = np.arange(2).repeat(max(shots))
            features = random.normal(size=(len(labels), 2))  # Any: for the names only.
            data = fewshot.FeatureSet(features, labels, features, labels)
            names += [f"{part.name}_{key}" for key in self._measure(data, shots)]
        return names

    def evaluate(
        self, model: keras.Model, strategy: tf.distribute.Strategy
    ) -> dict[str, float]:
        """Return the metrics of every set, accuracies in [0, 1]."""
        extract = self._get_pass(model, strategy)
        metrics: dict[str, float] = {}
        for part in self._sets:
            data = make_feature_set(extract, part.train, part.test)
            shots = self._shots if part.shots is None else part.shots
            measured = self._measure(data, shots)
            metrics |= {f"{part.name}_{key}": measured[key] for key in measured}
        return metrics

    def _all_images(self) -> Iterator[Images]:
        for part in self._sets:
            yield part.train
            yield match_classes(part.train, part.test)

    def _make_pass(
        self, model: keras.Model, strategy: tf.distribute.Strategy
    ) -> ImagePass:
        compute = layer_output(model, self._layer)
        return make_feature_pass(compute, strategy, batch_size=self._batch_size)

    def _measure(
        self, data: fewshot.FeatureSet, shots: Sequence[int]
    ) -> dict[str, float]:
        metrics: dict[str, float] = {}
        accuracies = fewshot.compute_accuracies(
            data, shots=shots, seeds=self._seeds, strengths=self._strengths
        )
        for strength, rows in accuracies.items():
            end = "" if strength == self._strengths[0] else f"_l2_{strength:g}"
            for number, accuracy in rows.items():
                metrics[f"{number}shot{end}"] = accuracy.mean
                metrics[f"{number}shot_half_interval{end}"] = accuracy.half_width
                for seed, value in zip(self._seeds, accuracy.per_seed, strict=True):
                    metrics[f"{number}shot_seed{seed}{end}"] = value
        for probe in self._probes:
            metrics[probe] = float(np.mean(PROBES[probe](data) == data.test_labels))
        return metrics


class MappedAccuracy(_PeriodicEvaluator):
    """Accuracy on a set with other classes than the model's, at an interval of steps.

    Metrics: `top1`, `top5` in [0, 1] and `examples`, the number of images that count.
    """

    @check_arguments
    def __init__(
        self,
        images: Images,
        label_map: LabelMap,
        *,
        name: str,
        interval_steps: PositiveInt,
        batch_size: PositiveInt = 1024,
    ) -> None:
        """Store the set and its label map, and check them.

        Args:
            images: The set (an `EvalData`), with labels of its own classes.
            label_map: The model's classes that correspond to them.
            name: Name under which the metrics are logged, such as "imagenet_a".
            interval_steps: Training steps between evaluations.
            batch_size: Images over all replicas.

        Raises:
            ValueError: Set and map have different numbers of classes, or the interval
                is not positive.
        """
        super().__init__(name, interval_steps)
        if images.classes != len(label_map.groups):
            raise ValueError(
                "`label_map` must have a group for each of the set's classes; received "
                f"{len(label_map.groups)} groups for {images.classes} classes."
            )
        self._images, self._map, self._batch_size = images, label_map, batch_size

    def check_model(self, model: keras.Model) -> Collection[str]:
        """Check the label map, and the first image of the set.

        Raises:
            ValueError: Model and map have different classes, or an image does not fit.
        """
        self._check_classes(model)
        batch = _read_first_image(self._images, model, self.name)
        self._map.hits(tf.zeros([1, self._map.classes]), batch["labels"])
        return ("top1", "top5", "examples")

    def evaluate(
        self, model: keras.Model, strategy: tf.distribute.Strategy
    ) -> dict[str, float]:
        """Return the metrics.

        Raises:
            ValueError: Model and map have different classes, or no image counts.
        """
        self._check_classes(model)
        hits = self._get_pass(model, strategy)(self._images)
        examples = int(hits["counted"].sum())
        if not examples:
            raise ValueError(f"No image of {self.name!r} is of a class of the model.")
        return {
            "top1": float(hits["top1"].sum() / examples),
            "top5": float(hits["top5"].sum() / examples),
            "examples": float(examples),
        }

    def _all_images(self) -> Iterator[Images]:
        yield self._images

    def _check_classes(self, model: keras.Model) -> None:
        if model.output_shape[-1] != self._map.classes:
            raise ValueError(
                f"`label_map` of {self.name!r} is for {self._map.classes} classes; the "
                f"model has {model.output_shape[-1]}."
            )

    def _make_pass(
        self, model: keras.Model, strategy: tf.distribute.Strategy
    ) -> ImagePass:
        def compute_hits(batch: Batch) -> dict[str, tf.Tensor]:
            logits = tf.cast(model(batch["images"], training=False), tf.float32)
            return self._map.hits(logits, batch["labels"])

        return make_pass(compute_hits, strategy, batch_size=self._batch_size)


def _read_first_image(images: Images, model: keras.Model, name: str) -> Batch:
    """Return a batch of a set's first image; raise if it does not fit the model."""
    batch = next(iter(images.dataset(batch_size=1)))
    shape, expected = tuple(batch["images"].shape[1:]), model.input_shape[1:]
    if shape != expected:
        raise ValueError(
            f"The images of {name!r} must have the model's shape, {expected}; received "
            f"{shape}. Bind its `image_size` to the model's."
        )
    return batch
