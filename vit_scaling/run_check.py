"""Check a run that is built, before its first step: every set and every evaluator."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vit_scaling.class_names import names_of
from vit_scaling.experiment import Experiment
from vit_scaling.training.evaluator import batch_sums, local_batch
from vit_scaling.training.run import Run, check_best_metric_known

_MAX_CLASSES_SHOWN = 20


def check_evaluations(run: Run, experiment: Experiment) -> list[str]:
    """Try everything that an evaluation does, but the model, on each set's first batch.

    Returns:
        A line on each set and each further evaluator.

    Raises:
        ValueError: Images or labels do not fit the model, an evaluator cannot run, or
            nothing measures `best_metric`.
        FileNotFoundError: The files of a set are missing.
    """
    if not run.options.evaluate:
        return ["Nothing is evaluated."]
    lines = []
    measured: dict[str, set[str]] = {}
    sets = experiment.eval_sets()
    for name, distributed in run.evaluator.first_batches():
        batch = local_batch(distributed, run.trainer.strategy)
        _check_shapes(run, name, batch)
        labels, mask = tf.constant(batch["labels"]), tf.constant(batch["mask"])
        sums = batch_sums(tf.zeros_like(labels), labels, mask, experiment.loss)
        measured[name] = set(sums)
        count = getattr(sets[name], "num_examples", None)
        images = "images" if count is None else f"{count:,} images"
        lines.append(f"{name}: {images}, {batch['labels'].shape[-1]} classes")
    for evaluator in experiment.evaluators:
        metrics = evaluator.check_model(run.model)
        every = f"every {evaluator.interval_steps:,} steps"
        lines.append(f"{evaluator.name}: {every}; {', '.join(metrics) or 'unknown'}")
        if metrics:
            measured[evaluator.name] = set(metrics)
    check_best_metric_known(run.options.best_metric, measured)
    return lines


def describe(run: Run, experiment: Experiment) -> str:
    """Return the sets, statistics of their first batches, and the shapes of a run.

    The model and every evaluator run on the first batch of their sets.

    Raises:
        ValueError: The run would fail later (see `check_evaluations`), or the loss of
            the first evaluated batch is not finite.
    """
    data, names = experiment.train_data, names_of(experiment.train_data)
    batches = run.batches_from(0, run.state.order_version)
    batch = local_batch(next(iter(batches)), run.trainer.strategy)
    _check_shapes(run, "train", batch)
    lines = [
        f"train: {data.num_examples:,} images, {batch['labels'].shape[-1]} classes",
        *check_evaluations(run, experiment),
        *_describe_batch("train", batch, names),
    ]
    for name, batch, sums in run.evaluator.check_batches():
        lines += [*_describe_batch(name, batch, names), _describe_sums(name, sums)]
    lines += [
        f"model: images {_size(run.model.input_shape)} to {run.model.output_shape[-1]} "
        f"logits, {run.total_steps:,} steps of {experiment.batch_size} images",
    ]
    return "\n".join(lines)


def _check_shapes(run: Run, name: str, batch: Mapping[str, Any]) -> None:
    expected = run.model.input_shape[1:], run.model.output_shape[1:]
    shapes = tuple(batch["images"].shape[1:]), tuple(batch["labels"].shape[1:])
    if shapes != expected:
        raise ValueError(
            f"The model takes images {_size(expected[0])} of {expected[1][-1]} "
            f"classes; the set {name!r} has images {_size(shapes[0])} of "
            f"{shapes[1][-1]}. Bind `image_size` and `classes` of model and data to "
            "the same macros."
        )


def _size(shape: tuple[int | None, ...]) -> str:
    return "×".join(str(number) for number in shape[-3:])


def _describe_sums(name: str, sums: Mapping[str, float]) -> str:
    """Return the model's metrics on a set's first batch, before training.

    Raises:
        ValueError: The loss is not finite.
    """
    examples = sums["examples"]
    if not examples:
        return f"{name}: first evaluation: no image has a label"
    loss, top1 = sums["loss"] / examples, sums["top1"] / examples
    if not np.isfinite(loss):
        raise ValueError(
            f"The loss of the first {examples:g} labelled images of {name!r} must be "
            f"finite; received {loss}. Check the set's labels and the initial weights."
        )
    return f"{name}: first evaluation: loss {loss:.4f}, top1 {top1:.4f}"


def _describe_batch(
    set_name: str, batch: Mapping[str, Any], names: Sequence[str]
) -> Iterator[str]:
    """Yield statistics of a batch's pixels by channel, and sums of its labels."""
    used = batch["mask"] > 0 if "mask" in batch else np.s_[:]
    images, labels = batch["images"][used], batch["labels"][used]
    if not len(images):  # Of a set that is smaller than the hosts' batches.
        yield f"{set_name}: first batch: no image of this host"
        return
    statistics = ", ".join(
        f"{kind} " + " ".join(f"{v:.3f}" for v in getattr(images, kind)(axis=(0, 1, 2)))
        for kind in ("mean", "std", "min", "max")
    )
    yield (
        f"{set_name}: first batch: {len(images)} images {_size(images.shape)}, "
        f"{statistics}"
    )
    sums = labels.sum(axis=0)
    shown = np.argsort(-sums, kind="stable")[:_MAX_CLASSES_SHOWN]
    text = ", ".join(f"{names[i] if names else i} {sums[i]:g}" for i in sorted(shown))
    more = len(sums) - len(shown)
    rarer = f", and {more} rarer classes" if more else ""
    yield f"{set_name}: first labels: {text}{rarer}"
