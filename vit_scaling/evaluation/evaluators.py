"""Measures taken while a model trains: few-shot sets, and sets of other classes."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vit_scaling.evaluation import fewshot, probes
from vit_scaling.evaluation.images import (
    Batch,
    Images,
    Run,
    feature_set,
    features_of,
    layer_output,
    over_images,
)
from vit_scaling.evaluation.label_maps import LabelMap


@dataclasses.dataclass(frozen=True)
class FewShotSet:
    """A named set with a part to take shots from and a part to test on.

    Attributes:
        name: Begins the names of the figures, such as "pets" in "pets_10shot".
        train: Images to take shots from (an `EvalData`).
        test: Images to measure the accuracy on (an `EvalData`).
        shots: Of this set; None takes the evaluator's. Birds (2010) has 15 training
            images per class, too few for 25 shots.
    """

    name: str
    train: Images
    test: Images
    shots: Sequence[int] | None = None


class _OfOneModel:
    """Keep the compiled pass over images for as long as the model stays the same."""

    def __init__(
        self, make: Callable[[keras.Model, tf.distribute.Strategy], Run]
    ) -> None:
        self._make = make
        self._made: tuple[keras.Model, tf.distribute.Strategy, Run] | None = None

    def __call__(self, model: keras.Model, strategy: tf.distribute.Strategy) -> Run:
        if (
            self._made is None
            or self._made[0] is not model
            or self._made[1] is not strategy
        ):
            self._made = model, strategy, self._make(model, strategy)
        return self._made[2]


class FewShot:
    """Few-shot accuracies of a model on any number of sets, at an interval of steps.

    Figures, by set and shots: `pets_10shot` (mean over the seeds),
    `pets_10shot_half_interval` (half of the 95% interval by Student's t) and
    `pets_10shot_seed0` …; with several strengths all but the first end in `_l2_512`.

    Example: bind `Experiment.evaluators = [@FewShot()]` (gin/evaluation/fewshot.gin).
    """

    def __init__(
        self,
        sets: Sequence[FewShotSet],
        *,
        interval_steps: int = 25_000,
        shots: Sequence[int] = fewshot.SHOTS,
        seeds: Sequence[int] = fewshot.SEEDS,
        strengths: Sequence[float] = (fewshot.STRENGTH,),
        layer: str = "pre_logits",
        batch_size: int = 1024,
        linear_probe: bool = False,
        neighbours: bool = False,
        name: str = "fewshot",
    ) -> None:
        """Take the sets and what is measured on them.

        Args:
            sets: Each with a name of its own.
            interval_steps: Training steps between measures (25,000 in the authors'
                configuration).
            shots: Training images per class (1, 5, 10, 25 in §2).
            seeds: Of the choice of images (the authors' three).
            strengths: Of the L2 regularisation (1024, the authors').
            layer: Name of the layer whose output the features are.
            batch_size: Images over all replicas.
            linear_probe: Also fit a linear probe on the whole training part.
            neighbours: Also vote by nearest neighbours of the whole training part.
            name: Under which the figures are logged.

        Raises:
            ValueError: There is no set, two have one name, or the interval, shots,
                seeds or strengths are none that can be measured.
        """
        names = [one.name for one in sets]
        if not names or len(set(names)) != len(names):
            raise ValueError(
                "`sets` must be one or more few-shot sets of different names; received "
                f"names {names}."
            )
        _check_interval(interval_steps)
        fewshot.check_numbers(seeds=seeds, strengths=strengths)
        for number in (shots, *(one.shots for one in sets if one.shots is not None)):
            fewshot.check_numbers(shots=number)
        self.name = name
        self.interval_steps = interval_steps
        self._sets = tuple(sets)
        self._choices = {"shots": shots, "seeds": seeds, "strengths": strengths}
        self._strengths = tuple(strengths)
        self._linear_probe = linear_probe
        self._neighbours = neighbours
        self._extract = _OfOneModel(
            lambda model, strategy: features_of(
                layer_output(model, layer), strategy, batch_size=batch_size
            )
        )

    def check(self) -> None:
        """Raise, before training begins, if a set has too few images for its shots.

        All images are counted, not those of each class, which only reading them tells.

        Raises:
            ValueError: There are fewer than the shots of every class.
            FileNotFoundError: A set's files are not there.
        """
        for one in self._sets:
            most = max(self._choices["shots"] if one.shots is None else one.shots)
            found = getattr(one.train, "num_examples", None)
            if found is not None and found < most * one.train.classes:
                raise ValueError(
                    f"`shots`={most} of the {one.train.classes} classes of "
                    f"{one.name!r} are {most * one.train.classes} training images; the "
                    f"set has {found}. Take fewer shots, of all sets or "
                    "(FewShotSet.shots) of this one."
                )

    def evaluate(
        self, model: keras.Model, strategy: tf.distribute.Strategy
    ) -> dict[str, float]:
        """Return the figures of every set, accuracies in [0, 1]."""
        extract = self._extract(model, strategy)
        figures: dict[str, float] = {}
        for one in self._sets:
            data = feature_set(extract, one.train, one.test)
            figures |= {
                f"{one.name}_{key}": value
                for key, value in self._measure(data, one.shots).items()
            }
        return figures

    def _measure(
        self, data: fewshot.FeatureSet, shots: Sequence[int] | None
    ) -> dict[str, float]:
        figures: dict[str, float] = {}
        choices: dict[str, Any] = dict(self._choices)
        choices["shots"] = choices["shots"] if shots is None else shots
        found = fewshot.accuracies(data, **choices)
        for strength, rows in found.items():
            end = "" if strength == self._strengths[0] else f"_l2_{strength:g}"
            for number, accuracy in rows.items():
                figures[f"{number}shot{end}"] = accuracy.mean
                figures[f"{number}shot_half_interval{end}"] = accuracy.half_width
                for seed, value in zip(
                    self._choices["seeds"], accuracy.per_seed, strict=True
                ):
                    figures[f"{number}shot_seed{seed}{end}"] = value
        if self._linear_probe:
            predicted, _ = probes.linear_probe(data)
            figures["linear_probe"] = float(np.mean(predicted == data.test_labels))
        if self._neighbours:
            predicted = probes.nearest_neighbours(data)
            figures["neighbours"] = float(np.mean(predicted == data.test_labels))
        return figures


class MappedAccuracy:
    """Accuracy on a set whose classes are others than the model's, at an interval.

    Figures: `top1`, `top5` in [0, 1] and `examples`, the number of images that count.
    """

    def __init__(
        self,
        images: Images,
        label_map: LabelMap,
        *,
        name: str,
        interval_steps: int,
        batch_size: int = 1024,
    ) -> None:
        """Take the set and its map.

        Args:
            images: The set (an `EvalData`), with labels of its own classes.
            label_map: Which of the model's classes stand for them.
            name: Under which the figures are logged, such as "imagenet_a".
            interval_steps: Training steps between measures.
            batch_size: Images over all replicas.

        Raises:
            ValueError: Set and map have different numbers of classes, or the interval
                is not positive.
        """
        _check_interval(interval_steps)
        if images.classes != len(label_map.groups):
            raise ValueError(
                "`label_map` must have a group for each of the set's classes; received "
                f"{len(label_map.groups)} groups for {images.classes} classes."
            )
        self.name = name
        self.interval_steps = interval_steps
        self._images = images
        self._map = label_map
        self._run = _OfOneModel(
            lambda model, strategy: over_images(
                self._hits_of(model), strategy, batch_size=batch_size
            )
        )

    def check(self) -> None:
        """Check nothing more: the constructor has checked the set and its map."""

    def evaluate(
        self, model: keras.Model, strategy: tf.distribute.Strategy
    ) -> dict[str, float]:
        """Return the figures.

        Raises:
            ValueError: The model's classes are not the map's, or no image counts.
        """
        if model.output_shape[-1] != self._map.classes:
            raise ValueError(
                f"`label_map` of {self.name!r} is for {self._map.classes} classes; the "
                f"model has {model.output_shape[-1]}."
            )
        hits = self._run(model, strategy)(self._images)
        examples = int(hits["counted"].sum())
        if not examples:
            raise ValueError(f"No image of {self.name!r} is of a class of the model.")
        return {
            "top1": float(hits["top1"].sum() / examples),
            "top5": float(hits["top5"].sum() / examples),
            "examples": float(examples),
        }

    def _hits_of(self, model: keras.Model) -> Callable[[Batch], dict[str, tf.Tensor]]:
        def hits(batch: Batch) -> dict[str, tf.Tensor]:
            logits = tf.cast(model(batch["images"], training=False), tf.float32)
            return self._map.hits(logits, batch["labels"])

        return hits


def _check_interval(interval_steps: int) -> None:
    if interval_steps < 1:
        raise ValueError(
            f"`interval_steps` must be at least 1; received {interval_steps}."
        )
