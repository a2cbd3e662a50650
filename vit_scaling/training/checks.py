"""Checks that settings are consistent, made before a model is built."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterable

import keras
import tensorflow as tf

from vit_scaling.training.processes import has_several_processes


def check_batch(
    batch_size: int, strategy: tf.distribute.Strategy, *, name: str = "batch_size"
) -> None:
    """Check that the replicas can share a batch evenly.

    Args:
        batch_size: Images of a batch over all replicas.
        strategy: The run's strategy.
        name: Name of the argument, for the error message.

    Raises:
        ValueError: It is not a positive multiple of the number of replicas.
    """
    replicas = strategy.num_replicas_in_sync
    if not isinstance(batch_size, int) or batch_size < 1 or batch_size % replicas:
        raise ValueError(
            f"`{name}` must be a positive multiple of the {replicas} replicas that "
            f"share it; received {batch_size!r}."
        )


def check_averages(optimizer: keras.optimizers.Optimizer) -> None:
    """Check that the optimizer averages the weights.

    Raises:
        ValueError: It does not.
    """
    if getattr(optimizer, "average_decay", None) is None:
        raise ValueError(
            "`evaluate_averages` needs averaged weights; bind the optimizer's "
            "`average_decay` (0.9999 for ViT-G's fine-tuning)."
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


def check_single_process(strategy: tf.distribute.Strategy) -> None:
    """Check that a single process evaluates checkpoints as they appear.

    Raises:
        ValueError: The strategy has several processes.
    """
    if has_several_processes(strategy):
        raise ValueError(
            "`continuous_eval` needs one process, since workers would see checkpoints "
            "at different times; received several workers. Run it with --distribution="
            "one_device or mirrored."
        )
