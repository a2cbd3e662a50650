"""What does not fit together is refused before a model is made."""
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Iterable, Sequence

import keras
import tensorflow as tf
from absl import logging

from vit_scaling.training.agreement import has_several_processes


def check_batch(
    batch_size: int, strategy: tf.distribute.Strategy, *, name: str = "batch_size"
) -> None:
    """Refuse a batch that the replicas cannot share evenly; `name` is the argument's.

    Raises:
        ValueError: It is not a positive multiple of the number of replicas.
    """
    replicas = strategy.num_replicas_in_sync
    if not isinstance(batch_size, int) or batch_size < 1 or batch_size % replicas:
        raise ValueError(
            f"`{name}` must be a positive multiple of the {replicas} replicas that "
            f"share it; received {batch_size!r}."
        )


def check_averages(optimizer: keras.optimizers.Optimizer, *, wanted: bool) -> None:
    """Refuse to evaluate averages that the optimizer will not keep.

    Raises:
        ValueError: They are wanted, and it keeps none.
    """
    if wanted and getattr(optimizer, "average_decay", None) is None:
        raise ValueError(
            "`evaluate_averages` needs averaged weights; bind the optimizer's "
            "`average_decay` (0.9999 for ViT-G's fine-tuning)."
        )


def check_steps(
    total_steps: int,
    checkpoint_every_steps: int | None,
    keep_every_steps: int | None,
    branch_at: Sequence[int] = (),
) -> None:
    """Refuse branches beyond the end; warn where fewer checkpoints stay than asked for.

    Raises:
        ValueError: A step of `branch_at` never comes.
    """
    late = [step for step in branch_at if step > total_steps]
    if late:
        raise ValueError(
            f"`branch_at` must be steps of the run, which ends at {total_steps}; "
            f"received {', '.join(map(str, late))}. Branch earlier, or bind a larger "
            "TOTAL_STEPS."
        )
    kept, saved = keep_every_steps, checkpoint_every_steps
    if kept and saved and kept <= total_steps and kept % saved:
        logging.warning(
            "Of the checkpoints at multiples of `keep_every_steps`, %d, only those at "
            "multiples of %d stay: the run saves every `checkpoint_every_steps`, %d. "
            "Make the one a multiple of the other.",
            kept,
            math.lcm(kept, saved),
            saved,
        )


def check_best_metric(
    metric: str | None, sets: Iterable[str], others: Iterable[str]
) -> None:
    """Refuse a metric that no evaluation will measure, before anything is trained.

    Args:
        metric: "SET/METRIC" or None.
        sets: Names of the evaluation sets, which measure top1, top5 and loss.
        others: Names of further evaluators, whose figures are known once they ran.

    Raises:
        ValueError: `metric` names none of them.
    """
    known = [f"{name}/{key}" for name in sets for key in ("top1", "top5", "loss")]
    known += [f"{name}/…" for name in others]
    name, slash, _ = (metric or "").partition("/")
    if metric is not None and not {metric, f"{name}{slash}…"} & set(known):
        told = ", ".join(known) or "None, since nothing is evaluated"
        raise ValueError(f"`best_metric` must be {told}; received {metric!r}.")


def check_single_process(strategy: tf.distribute.Strategy) -> None:
    """Refuse several workers where each would see checkpoints appear by itself.

    Raises:
        ValueError: The strategy has several processes.
    """
    if has_several_processes(strategy):
        raise ValueError(
            "`continuous_eval` needs one process, since workers would see checkpoints "
            "at different times; received several workers. Run it with --distribution="
            "one_device or mirrored."
        )
