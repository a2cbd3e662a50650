"""The interface of an update rule: the state of a weight and the direction of a step.

Importing a rule imports neither TensorFlow nor Keras, so that memory can be planned
where they are not installed. Rules are listed in `update_rules.py`.
"""
# SPDX-License-Identifier: Apache-2.0

import abc
import dataclasses
from typing import Any, Literal, NamedTuple, TypeAlias

from vit_scaling.argument_types import check_fields
from vit_scaling.optimization.serialization import DataclassConfig

# Dtypes that state may have, and the bytes of one value.
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}

Shape: TypeAlias = tuple[int, ...]
Tensors: TypeAlias = dict[str, Any]
StateDtype: TypeAlias = Literal["float32", "bfloat16", "float16", "float64"]


class Slot(NamedTuple):
    """An array of state that a rule keeps for a weight."""

    shape: Shape
    dtype: str


Slots: TypeAlias = dict[str, Slot]


@dataclasses.dataclass(frozen=True)
class UpdateRule(DataclassConfig, abc.ABC):
    """A rule that turns gradients into directions; its fields are hyper-parameters.

    `Optimizer` does the rest of a step: see there.

    Raises:
        ValueError: A field has another type, or is out of its range.
    """

    def __post_init__(self) -> None:
        check_fields(self)

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
