"""An experiment: the model, data, loss and optimizer that a run combines."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from vit_scaling.argument_types import PositiveInt, check_argument, check_arguments
from vit_scaling.batch_distribution import DistributedBatches
from vit_scaling.class_names import with_class_names
from vit_scaling.data.epoch_order import ORDER_VERSION
from vit_scaling.data.pipeline import EvalData, TrainData
from vit_scaling.optimization.accumulation import accumulate_gradients
from vit_scaling.optimization.base_schedule import Schedule
from vit_scaling.training.evaluator import InLoopEvaluator
from vit_scaling.training.losses import sigmoid_cross_entropy
from vit_scaling.training.options import RunOptions
from vit_scaling.training.step import TrainStep, make_train_step


class InitialWeights(Protocol):
    """Report of which weights were loaded; `str` of it is printed."""

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values, for `run.json`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """The parts of a run, before any of them is built.

    Attributes:
        make_model: Returns a Keras model from images to logits (batch, classes). It is
            called in the scope of the run's strategy.
        make_optimizer: From `learning_rate` (the schedule) to one of our optimizers.
        schedule: Learning rate by step; its `total_steps` is the length of the run.
        train_data: The training images.
        batch_size: Images of one step over all replicas; 4096 in the paper (App. B).
        loss: (logits, labels) to (batch,); sigmoid cross-entropy in the paper (§3.3).
        eval_data: One evaluation set, or several by name.
        eval_batch_size: Images of an evaluation batch. None: `batch_size`.
        evaluators: Further measurements during training, each at its own interval.
        micro_batches: Pieces of a replica's batch, one after the other, whose gradients
            are averaged.
        prepare_model: Called with the built model, such as to regularize it.
        load_weights: Called with the built model and the training data (`target`) if
            the run has no checkpoint yet, to load initial weights. What it returns is
            printed and recorded.
    """

    make_model: Callable[[], keras.Model]
    make_optimizer: Callable[..., keras.optimizers.Optimizer]
    schedule: Schedule
    train_data: TrainData
    batch_size: PositiveInt
    loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = sigmoid_cross_entropy
    eval_data: EvalData | Mapping[str, EvalData] | None = None
    eval_batch_size: PositiveInt | None = None
    evaluators: Sequence[InLoopEvaluator] = ()
    micro_batches: PositiveInt = 1
    prepare_model: Callable[[keras.Model], Any] | None = None
    load_weights: Callable[..., InitialWeights | None] | None = None

    def __post_init__(self) -> None:
        # Data and evaluators may be any objects with the methods of ours.
        for name in ("batch_size", "eval_batch_size", "micro_batches"):
            check_argument(Experiment, name, getattr(self, name))

    def check(self, strategy: tf.distribute.Strategy, options: RunOptions) -> None:
        """Check that all settings are consistent before building anything.

        Raises:
            ValueError: A batch is not a multiple of the replicas, the pixels of an
                evaluation set have another range than those of training, `best_metric`
                is not evaluated, or an evaluator cannot run.
        """
        check_batch(self.batch_size, strategy, micro_batches=self.micro_batches)
        if self.eval_batch_size is not None:
            check_batch(self.eval_batch_size, strategy, name="eval_batch_size")
        if not options.evaluate:
            check_best_metric(options.best_metric, (), ())
            return
        for name, data in self.eval_sets().items():
            _check_equal_ranges(name, data, self.train_data)
        names = [evaluator.name for evaluator in self.evaluators]
        check_best_metric(options.best_metric, self.eval_sets(), names)
        for evaluator in self.evaluators:
            evaluator.check()

    def build_model(self) -> keras.Model:
        """Build and prepare the model; must be called in the strategy's scope.

        Raises:
            ValueError: The model's outputs are not logits of the data's classes.
        """
        model = self.make_model()
        expected = (None, self.train_data.classes)
        if model.output_shape != expected:
            raise ValueError(
                "`make_model` must return a model with outputs of the data's shape, "
                f"{expected}; received {model.output_shape}. Bind the same CLASSES for "
                "both, and a head that pools, such as HEAD = 'map'."
            )
        if self.prepare_model is not None:
            self.prepare_model(model)
        return model

    def build_optimizer(
        self, model: keras.Model, schedule: Schedule
    ) -> keras.optimizers.Optimizer:
        """Build the optimizer; must be called in the strategy's scope.

        Args:
            model: Its trainable variables are optimized.
            schedule: With all lengths in steps, such as `schedule_in_steps()`.
        """
        optimizer = self.make_optimizer(learning_rate=schedule)
        optimizer.build(model.trainable_variables)
        return optimizer

    def make_step(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        **options: Any,
    ) -> TrainStep:
        """Return the training step of one replica; see `make_train_step`."""
        accumulate = functools.partial(
            accumulate_gradients, micro_batches=self.micro_batches
        )
        return make_train_step(
            model, optimizer, self.loss, accumulate=accumulate, **options
        )

    def schedule_in_steps(self) -> Schedule:
        """Return the schedule with every length in steps."""
        if self.schedule.resolved:
            return self.schedule
        images = self.train_data.num_examples
        return self.schedule.in_steps(batch_size=self.batch_size, train_examples=images)

    def train_batches(
        self,
        strategy: tf.distribute.Strategy,
        seed: int,
        start: int,
        order_version: int = ORDER_VERSION,
    ) -> DistributedBatches:
        """Return the distributed training batches from batch number `start` on."""
        return DistributedBatches(
            strategy,
            lambda context: self.train_data.dataset(
                batch_size=self.batch_size,
                seed=seed,
                start_step=start,
                order_version=order_version,
                input_context=context,
            ),
        )

    def with_class_names(self, names: Sequence[str], *, reference: str) -> "Experiment":
        """Return the experiment with evaluation labels mapped by name to `names`.

        Args:
            names: Class names in the order of the logits; empty if unknown.
            reference: What has these names, for messages.

        Raises:
            ValueError: An evaluation set has a class that is not among them.
        """
        sets = {
            name: with_class_names(
                data, names, source=f"Evaluation set {name!r}", reference=reference
            )
            for name, data in self.eval_sets().items()
        }
        return dataclasses.replace(self, eval_data=sets or None)

    def eval_sets(self) -> dict[str, EvalData]:
        """Return the evaluation sets by name; a single one is called "eval"."""
        data = self.eval_data or {}
        return dict(data) if isinstance(data, Mapping) else {"eval": data}

    def eval_batches(
        self, strategy: tf.distribute.Strategy
    ) -> dict[str, DistributedBatches]:
        """Return the distributed batches of each evaluation set, by name."""
        size = self.eval_batch_size or self.batch_size

        def distribute(data: EvalData) -> DistributedBatches:
            return DistributedBatches(
                strategy,
                lambda context: data.dataset(batch_size=size, input_context=context),
            )

        return {name: distribute(data) for name, data in self.eval_sets().items()}


@check_arguments
def check_batch(
    batch_size: PositiveInt,
    strategy: tf.distribute.Strategy,
    *,
    name: str = "batch_size",
    micro_batches: PositiveInt = 1,
) -> None:
    """Check that the replicas can share a batch evenly.

    Args:
        batch_size: Images of a batch over all replicas.
        strategy: The run's strategy.
        name: Name of the argument, for the error message.
        micro_batches: Pieces of each replica's batch.

    Raises:
        ValueError: It is not a multiple of the number of replicas times micro-batches.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % (replicas * micro_batches):
        pieces = f" times `micro_batches` = {micro_batches}" * (micro_batches > 1)
        raise ValueError(
            f"`{name}` must be a multiple of the {replicas} replicas that share it"
            f"{pieces}; received {batch_size}."
        )


def _check_equal_ranges(name: str, data: EvalData, train_data: TrainData) -> None:
    own = getattr(data, "value_range", train_data.value_range)
    pair = (np.asarray(each).reshape(2, -1) for each in (own, train_data.value_range))
    if not np.all(np.equal(*pair)):
        raise ValueError(
            f"`value_range` of the evaluation set {name!r} must be that of the "
            f"training data, {train_data.value_range}; received {own}. Bind "
            "TrainData.value_range and EvalData.value_range to the same values."
        )


def check_best_metric(
    metric: str | None, sets: Iterable[str], others: Iterable[str]
) -> None:
    """Check that evaluations measure a metric.

    Args:
        metric: "SET/METRIC" or None.
        sets: Names of the evaluation sets, which have the metrics top1, top5 and loss.
        others: Names of further evaluators, whose metrics are known once they ran.

    Raises:
        ValueError: `metric` is none of their metrics.
    """
    known = [f"{name}/{key}" for name in sets for key in ("top1", "top5", "loss")]
    known += [f"{name}/…" for name in others]
    name, slash, _ = (metric or "").partition("/")
    if metric is not None and not {metric, f"{name}{slash}…"} & set(known):
        accepted = ", ".join(known) or "None, since nothing is evaluated"
        raise ValueError(f"`best_metric` must be {accepted}; received {metric!r}.")
