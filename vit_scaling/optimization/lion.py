"""Lion: the sign of an interpolated momentum (Chen et al. 2023)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from typing import Any

from vit_scaling.argument_types import Decay
from vit_scaling.optimization.update_rule import (
    Shape,
    Slot,
    Slots,
    StateDtype,
    Tensors,
    UpdateRule,
)


@dataclasses.dataclass(frozen=True)
class Lion(UpdateRule):
    """Lion, direction = sign(β₁ · m + (1 - β₁) · gradient).

    Bytes of state per parameter: 4, or 2 in bfloat16. Every entry of a direction is 1,
    -1 or 0. The authors take learning rates 3 to 10 times lower than Adam's, with
    strengths of weight decay higher by the same factor (§5).

    Args:
        beta1: Weight of m in the direction; default 0.9.
        beta2: Decay of m; default 0.99.
        momentum_dtype: "float32" or "bfloat16". The direction is computed from the
            unrounded value, the rounded one is stored.

    References:
        Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", Algorithm 2.
    """

    beta1: Decay = 0.9
    beta2: Decay = 0.99
    momentum_dtype: StateDtype = "float32"

    def slots(self, shape: Shape) -> Slots:
        """Return m, of the weight's shape."""
        return {"first_moment": Slot(shape, self.momentum_dtype)}

    def direction(
        self, gradient: Any, state: Tensors, weights: Any, step: Any
    ) -> tuple[Any, Tensors]:
        """Return the sign and m = β₂ · m + (1 - β₂) · gradient."""
        import tensorflow as tf

        m = state["first_moment"]
        direction = tf.sign(self.beta1 * m + (1.0 - self.beta1) * gradient)
        return direction, {
            "first_moment": self.beta2 * m + (1.0 - self.beta2) * gradient
        }
