"""Polyak averages of the weights: their decay, and evaluation with them."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from vit_scaling.argument_types import Decay, NonNegativeInt, check_fields
from vit_scaling.optimization.serialization import DataclassConfig


@keras.saving.register_keras_serializable("vit_scaling")
@dataclasses.dataclass(frozen=True)
class AverageDecay(DataclassConfig):
    """The decay d in average = d · average + (1 - d) · weights, with a warm-up.

    With n = the updates since the warm-up, not counting the first, d = min(decay,
    n / (n + 1)). The average is a copy of the weights during the warm-up, next the
    plain mean of all weights since, and an exponential average once that forgets
    faster. So it never contains the initial weights.

    Args:
        decay: Fraction of the average kept in the long run, such as 0.9999.
        warmup_steps: Updates during which the average is a copy; default none.

    Raises:
        ValueError: The decay is not in (0, 1), or the warm-up is negative.
    """

    decay: Decay
    warmup_steps: NonNegativeInt = 0

    def __post_init__(self) -> None:
        check_fields(self)

    def at(self, step: Any) -> Any:
        """Return the decay of update `step`, 1 for the first; a scalar tensor."""
        behind = tf.maximum(step - 1.0 - self.warmup_steps, 0.0)
        return tf.minimum(behind / (behind + 1.0), self.decay)


def make_average_decay(decay: float | AverageDecay | None) -> AverageDecay | None:
    """Return an optimizer's `average_decay` as an object, a number without warm-up."""
    if decay is None or isinstance(decay, AverageDecay):
        return decay
    return AverageDecay(decay)


@contextlib.contextmanager
def averaged_weights(optimizer: Any, variables: Sequence[Any]) -> Iterator[None]:
    """Context manager under which the variables have the values of their averages.

    Call it outside of any `tf.function`. The averages do not change.

    Args:
        optimizer: An optimizer of this package, built for `variables`.
        variables: The model's trainable variables.

    Raises:
        ValueError: The optimizer keeps no averages.
    """
    averages = optimizer.averages(variables)
    if averages is None:
        raise ValueError(
            f"The optimizer {optimizer.name!r} keeps no averages. Set its "
            "`average_decay`, for example to 0.9999."
        )
    values = [variable.numpy() for variable in variables]
    try:
        for variable, average in zip(variables, averages, strict=True):
            variable.assign(average.numpy())
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
