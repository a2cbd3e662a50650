"""Adam, and Adam-HP: Adam with a first moment in bfloat16 (§3.4)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
from typing import Any

from vit_scaling.argument_types import Decay, NonNegativeFloat
from vit_scaling.optimization.update_rule import (
    Shape,
    Slot,
    Slots,
    StateDtype,
    Tensors,
    UpdateRule,
)


@dataclasses.dataclass(frozen=True)
class Adam(UpdateRule):
    """Adam (Kingma & Ba 2015, Algorithm 1); in bfloat16, the paper's Adam-HP.

    Bytes of state per parameter: 8, and 6 for Adam-HP (§3.4), which trains as well.

    Args:
        beta1: Decay of the first moment m; default 0.9 (App. B).
        beta2: Decay of the second moment v; default 0.999 (App. B).
        epsilon: Added to the root of the corrected v; default 1e-8.
        first_moment_dtype: "float32", or "bfloat16" for Adam-HP. The direction is
            computed from the unrounded value, the rounded one is stored.
        second_moment_dtype: "float32"; "bfloat16" trains clearly worse (§3.4) and is
            supported for that study.

    References:
        Zhai et al. 2022, §3.4.
    """

    beta1: Decay = 0.9
    beta2: Decay = 0.999
    epsilon: NonNegativeFloat = 1e-8
    first_moment_dtype: StateDtype = "float32"
    second_moment_dtype: StateDtype = "float32"

    def slots(self, shape: Shape) -> Slots:
        """Return both moments, of the weight's shape."""
        return {
            "first_moment": Slot(shape, self.first_moment_dtype),
            "second_moment": Slot(shape, self.second_moment_dtype),
        }

    def direction(
        self, gradient: Any, state: Tensors, weights: Any, step: Any
    ) -> tuple[Any, Tensors]:
        """Return m / (1 - β₁^t) / (√(v / (1 - β₂^t)) + ε) and the new moments."""
        import tensorflow as tf

        beta1, beta2 = self.beta1, self.beta2
        m = beta1 * state["first_moment"] + (1 - beta1) * gradient
        v = beta2 * state["second_moment"] + (1 - beta2) * tf.square(gradient)
        # 1 - β^t, in full precision also in float32 and for small t.
        correction1 = -tf.math.expm1(step * math.log(beta1))
        correction2 = -tf.math.expm1(step * math.log(beta2))
        # A scalar root, so that only one root is taken per weight.
        rate = tf.sqrt(correction2) / correction1
        floor = self.epsilon * tf.sqrt(correction2)
        direction = rate * m / (tf.sqrt(v) + floor)
        return direction, {"first_moment": m, "second_moment": v}
