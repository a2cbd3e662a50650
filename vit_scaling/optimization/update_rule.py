"""The interface of an update rule: the state of a weight and the direction of a step.

Importing a rule imports neither TensorFlow nor Keras, so that memory can be planned
where they are not installed. Rules are listed in `update_rules.py`.
"""
# SPDX-License-Identifier: Apache-2.0

import abc
import dataclasses
from typing import Any, NamedTuple, TypeAlias

from vit_scaling.optimization.serialization import DataclassConfig

# Dtypes that state may have, and the bytes of one value.
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}

Shape: TypeAlias = tuple[int, ...]
Tensors: TypeAlias = dict[str, Any]


class Slot(NamedTuple):
    """An array of state that a rule keeps for a weight."""

    shape: Shape
    dtype: str


Slots: TypeAlias = dict[str, Slot]


@dataclasses.dataclass(frozen=True)
class UpdateRule(DataclassConfig, abc.ABC):
    """A rule that turns gradients into directions; its fields are hyper-parameters.

    `Optimizer` does the rest of a step: see there.
    """

    @property
    def name(self) -> str:
        """Name of an optimizer with this rule; its state's paths begin with it."""
        return type(self).__name__.lower()

    @abc.abstractmethod
    def slots(self, shape: Shape) -> Slots:
        """Return the arrays kept for a weight of `shape`, by name."""

    @abc.abstractmethod
    def direction(
        self, gradient: Any, state: Tensors, weights: Any, step: Any
    ) -> tuple[Any, Tensors]:
        """Return the direction to subtract and the new state; a pure function.

        Args:
            gradient: Gradient, clipped, float32 (or float64 for such a weight).
            state: Values of the slots, cast to the gradient's dtype.
            weights: Value of the weight.
            step: Number of this update, a scalar tensor: 1 for the first.

        Returns:
            The direction and the new state, both unrounded. The state is then stored in
            the dtypes of its slots.
        """


def check_dtype(name: str, dtype: str) -> None:
    """Raise ValueError unless state may be stored in `dtype`."""
    if dtype not in BYTES:
        raise ValueError(
            f"`{name}` must be one of {', '.join(BYTES)}; received {dtype!r}."
        )


def check_fraction(name: str, value: float) -> None:
    """Raise ValueError unless `value` is between 0 and 1, both excluded."""
    if not 0 < value < 1:
        raise ValueError(f"`{name}` must be between 0 and 1; received {value!r}.")
