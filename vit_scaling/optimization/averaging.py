"""Polyak averages of the weights: how they grow, and how to evaluate under them."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf


def kept_share(step: Any, decay: float, warmup_steps: int) -> Any:
    """Return the share d of the old average in d · average + (1 - d) · weights.

    With n = the updates since the warm-up, not counting the first, d = min(decay,
    n / (n + 1)): a copy of the weights until then, next the plain mean of all weights
    since, and an exponential average once that forgets faster. So the average never
    holds the initial weights.

    Args:
        step: Number of the update, 1 for the first; a scalar tensor.
        decay: Share kept in the long run, such as 0.9999.
        warmup_steps: Updates during which the average is a copy.
    """
    behind = tf.maximum(step - 1.0 - warmup_steps, 0.0)
    return tf.minimum(behind / (behind + 1.0), decay)


def check(decay: float | None, warmup_steps: int) -> None:
    """Raise unless the arguments of an optimizer's average are in range.

    Raises:
        ValueError: The decay is not in (0, 1), or the warm-up is negative.
    """
    if decay is not None and not (math.isfinite(decay) and 0 < decay < 1):
        raise ValueError(
            "`average_decay` must lie between 0 and 1 (0.9999, for example), or be "
            f"None for no average; received {decay!r}."
        )
    if not isinstance(warmup_steps, int) or warmup_steps < 0:
        raise ValueError(
            "`average_warmup_steps` must be a whole number of steps, at least 0; "
            f"received {warmup_steps!r}."
        )


@contextlib.contextmanager
def averaged_weights(optimizer: Any, variables: Sequence[Any]) -> Iterator[None]:
    """Give the variables their averages inside a `with`, and their values back after.

    Call it outside of any `tf.function`. The averages themselves do not change.

    Args:
        optimizer: An optimizer of this package, built for `variables`.
        variables: The model's trainable variables.

    Raises:
        ValueError: The optimizer keeps no averages.
    """
    averages = optimizer.averages(variables)
    if averages is None:
        raise ValueError(
            f"{optimizer.name!r} keeps no averages. Give it `average_decay`, "
            "for example 0.9999."
        )
    values = [variable.numpy() for variable in variables]
    try:
        for variable, average in zip(variables, averages, strict=True):
            variable.assign(average.numpy())
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
