"""Evaluate a model on whole sets, top-1, top-5 and loss, as an Orbit evaluator."""
# SPDX-License-Identifier: Apache-2.0

import functools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import orbit
import tensorflow as tf

from vit_scaling.training.logs import RunLog
from vit_scaling.training.losses import LossFunction

Metrics = dict[str, dict[str, float]]  # {SET: {METRIC: value}}


class InLoopEvaluator(Protocol):
    """A further measurement on the model while it trains, such as few-shot.

    Attributes:
        name: Under which its metrics are logged.
        interval_steps: Steps between two measurements.
    """

    name: str
    interval_steps: int

    def check(self) -> None:
        """Raise, before anything is built, if the evaluator cannot run."""

    def check_model(self, model: keras.Model) -> Collection[str]:
        """Raise, before the first step, if the evaluator cannot run on the model.

        Returns:
            Names of the metrics; empty if they are known only after an evaluation.
        """
        return ()

    def check_batch(self, model: keras.Model, strategy: tf.distribute.Strategy) -> None:
        """Evaluate the first batch of every set; `--mode=check` does so."""

    def evaluate(
        self, model: keras.Model, strategy: tf.distribute.Strategy
    ) -> dict[str, float]:
        """Return metrics by name."""


class Evaluator(orbit.AbstractEvaluator):
    """Evaluate the model on every set, each image counted once, and log the metrics."""

    def __init__(
        self,
        model: keras.Model,
        loss: LossFunction,
        datasets: Mapping[str, Any],
        *,
        strategy: tf.distribute.Strategy,
        global_step: tf.Variable,
        log: RunLog,
        others: Sequence[InLoopEvaluator] = (),
        always: bool = False,
        jit_compile: bool = False,
    ) -> None:
        """Build the evaluation step.

        Args:
            model: Takes images, returns logits (batch, classes).
            loss: (logits, labels) to (batch,).
            datasets: By name, finite distributed datasets of {"images", "labels",
                "mask"}.
            strategy: Strategy under which the step runs.
            global_step: Number of updates done, for the log.
            log: Where the metrics go.
            others: Further evaluators, each at its own interval of steps.
            always: Whether those run at every evaluation, whatever their interval.
            jit_compile: Whether XLA compiles the step.
        """
        self.model = model
        self.suffix = ""  # Added to the names of logged sets.
        self._datasets = datasets
        self._strategy = strategy
        self._global_step = global_step
        self._log = log
        self._others = others
        self._always = always
        self._step = make_evaluation_step(model, loss, strategy, jit_compile)

    def evaluate(self, num_steps: tf.Tensor | int = -1) -> Metrics:
        """Return {SET: {"top1", "top5", "loss", "examples"}}; accuracies in [0, 1].

        Args:
            num_steps: Batches per set, or -1 for all.

        Raises:
            ValueError: A set has no labelled image.
        """
        limit, step = int(num_steps), int(self._global_step.numpy())
        measurements: list[tuple[str, Callable[[], dict[str, float]]]] = [
            (name, functools.partial(self._evaluate_set, dataset, limit))
            for name, dataset in self._datasets.items()
        ]
        measurements += [
            (other.name, functools.partial(other.evaluate, self.model, self._strategy))
            for other in self._others
            if self._always or step % other.interval_steps == 0
        ]
        return {name: self._measure(name, step, run) for name, run in measurements}

    def first_batches(self) -> Iterator[tuple[str, Any]]:
        """Yield the name and the first batch, distributed, of every set."""
        for name, dataset in self._datasets.items():
            yield name, next(iter(dataset))

    def check_batches(self) -> Iterator[tuple[str, dict[str, Any], dict[str, float]]]:
        """Evaluate the first batch of every set, without logging.

        Yields:
            The name of a set, this process's part of its first batch, and the sums over
            the entire batch (`batch_sums`).
        """
        for name, batch in self.first_batches():
            sums = {key: float(value) for key, value in self._step(batch).items()}
            yield name, local_batch(batch, self._strategy), sums
        for other in self._others:
            other.check_batch(self.model, self._strategy)

    def _measure(
        self, name: str, step: int, evaluate: Callable[[], dict[str, float]]
    ) -> dict[str, float]:
        """Return the metrics of one set and log them with the seconds they took."""
        started = time.perf_counter()
        values = evaluate()
        seconds = time.perf_counter() - started
        logged = name + self.suffix
        self._log.record(logged, step, {**values, "seconds": seconds})
        self._log.say_evaluation(logged, step, values, seconds)
        return values

    def _evaluate_set(self, dataset: Any, limit: int) -> dict[str, float]:
        totals: dict[str, float] = {}
        for number, batch in enumerate(dataset):
            if number == limit:
                break
            for name, value in self._step(batch).items():
                totals[name] = totals.get(name, 0.0) + float(value)
        examples = totals.pop("examples", 0.0)
        if not examples:
            raise ValueError(
                "`eval_data` must hold at least one labelled image; none was read."
            )
        means = {name: total / examples for name, total in totals.items()}
        return {**means, "examples": examples}


def local_batch(batch: Any, strategy: tf.distribute.Strategy) -> dict[str, Any]:
    """Return the part of a distributed batch that this process reads, as arrays."""
    return {
        key: np.concatenate(strategy.experimental_local_results(value))
        for key, value in batch.items()
    }


def make_evaluation_step(
    model: keras.Model,
    loss: LossFunction,
    strategy: tf.distribute.Strategy,
    jit_compile: bool = False,
) -> Callable[[Any], dict[str, tf.Tensor]]:
    """Return the function from a distributed batch to sums over all its images."""

    def replica_step(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        logits = tf.cast(model(batch["images"], training=False), tf.float32)
        return batch_sums(logits, batch["labels"], batch["mask"], loss)

    compiled = None
    if jit_compile:
        compiled = tf.function(replica_step, jit_compile=True, autograph=False)

    @tf.function(autograph=False)
    def step(batch: Any) -> dict[str, tf.Tensor]:
        sums = strategy.run(compiled or replica_step, args=(batch,))
        return {
            name: strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
            for name, value in sums.items()
        }

    return step


def batch_sums(
    logits: tf.Tensor, labels: tf.Tensor, mask: tf.Tensor, loss: LossFunction
) -> dict[str, tf.Tensor]:
    """Return the sums of hits and losses over a batch, and the number of images.

    As in the authors' classification evaluator, an image whose label row is all zero
    has no label and does not count. The first guess is right if it is any of the
    image's labels, and the five best are right if one of them is.

    Args:
        logits: (batch, classes).
        labels: (batch, classes), multi-hot.
        mask: (batch,), 0 for padding.
        loss: (logits, labels) to (batch,).

    Returns:
        {"top1", "top5", "loss", "examples"}, float32 scalars. Images that do not count
        are left out of all of them.
    """
    labelled = tf.cast(tf.reduce_any(labels > 0, axis=-1), tf.float32)  # (batch,)
    counted = mask * labelled
    guesses = tf.math.top_k(logits, k=min(5, logits.shape[-1])).indices  # (batch, 5)
    hits = tf.gather(labels, guesses, batch_dims=1) > 0  # (batch, 5)
    losses = tf.where(counted > 0, loss(logits, labels), 0.0)
    return {
        "top1": tf.reduce_sum(counted * tf.cast(hits[:, 0], tf.float32)),
        "top5": tf.reduce_sum(counted * tf.cast(tf.reduce_any(hits, -1), tf.float32)),
        "loss": tf.reduce_sum(losses),
        "examples": tf.reduce_sum(counted),
    }
