"""Dynamic loss scaling, which keeps float16 gradients from becoming zero."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from vit_scaling.argument_types import PositiveFloat, PositiveInt, check_fields


@keras.saving.register_keras_serializable("vit_scaling")
@dataclasses.dataclass(frozen=True)
class LossScale:
    """Multiplies the loss by a factor that follows the gradients' range.

    A step whose gradients are not finite is skipped and divides the scale by `factor`;
    `growth_steps` good steps in a row multiply it by `factor` (Micikevicius et al.
    2018, "Mixed Precision Training"). bfloat16 needs none: its range is float32's.

    Args:
        initial: First scale.
        factor: By which the scale changes.
        growth_steps: Good steps in a row before the scale grows.
        minimum: Smallest scale.

    Raises:
        ValueError: A field has another type, or is out of its range.
    """

    initial: PositiveFloat = 2.0**15
    factor: PositiveFloat = 2.0
    growth_steps: PositiveInt = 2000
    minimum: PositiveFloat = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.factor <= 1.0:
            raise ValueError(f"`factor` must be above 1; received {self.factor}.")

    def update(self, variables: Mapping[str, Any], finite: Any) -> None:
        """Assign the next "loss_scale" and "good_steps" after a step."""
        scale, good_steps = variables["loss_scale"], variables["good_steps"]
        next_scale, next_steps = self.next(scale.value, good_steps.value, finite)
        scale.assign(next_scale)
        good_steps.assign(next_steps)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LossScale":
        """Return the object of a configuration."""
        return cls(**config)

    def next(self, scale: Any, good_steps: Any, finite: Any) -> tuple[Any, Any]:
        """Return scale and number of good steps in a row after a step.

        Args:
            scale: Of the step, a float32 scalar.
            good_steps: In a row before the step, a float32 scalar.
            finite: Whether the step's gradients were finite.
        """
        good_steps = tf.where(finite, good_steps + 1.0, 0.0)
        grows = good_steps >= self.growth_steps
        smaller = tf.maximum(scale / self.factor, self.minimum)
        larger = tf.where(grows, scale * self.factor, scale)
        return tf.where(finite, larger, smaller), tf.where(grows, 0.0, good_steps)
