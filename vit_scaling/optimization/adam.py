"""Adam, and Adam-HP: Adam with a first moment in bfloat16 (§3.4)."""
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from vit_scaling.optimization.base import Optimizer, Tensors
from vit_scaling.optimization.schedules import Schedule
from vit_scaling.optimization.state_size import Shape, Slots, adam_slots, checked_dtype


def adam_direction(
    gradient: Any,
    m: Any,
    v: Any,
    step: Any,
    *,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> tuple[Any, Any, Any]:
    """One step of Adam (Kingma & Ba 2015, Algorithm 1); returns (direction, m, v).

    Args:
        gradient: Gradient, float32 or float64 (a tensor or a NumPy array).
        m: First moment, of the gradient's dtype.
        v: Second moment.
        step: Number of the update, 1 for the first, of the gradient's dtype.
        beta1: Decay of m.
        beta2: Decay of v.
        epsilon: Added to the root of the corrected v.
    """
    m = beta1 * m + (1 - beta1) * gradient
    v = beta2 * v + (1 - beta2) * tf.square(gradient)
    # A scalar root, so that the weight's own pass has a single one.
    rate = tf.sqrt(bias_correction(beta2, step)) / bias_correction(beta1, step)
    floor = epsilon * tf.sqrt(bias_correction(beta2, step))
    return rate * m / (tf.sqrt(v) + floor), m, v


def bias_correction(beta: float, step: Any) -> Any:
    """Return 1 - beta**step, in full precision also in float32 and early on."""
    return -tf.math.expm1(step * math.log(beta))


@keras.saving.register_keras_serializable("vit_scaling")
class Adam(Optimizer):
    """Adam with decoupled weight decay; `first_moment_dtype="bfloat16"` is Adam-HP.

    Bytes of state per parameter: 8, and 6 for Adam-HP (§3.4), which trains alike.

    Args:
        learning_rate: See `base.Optimizer`, also for the arguments after `epsilon`.
        beta1: Decay of the first moment; default 0.9 (App. B).
        beta2: Decay of the second moment; default 0.999 (App. B).
        epsilon: Added to the root of the second moment; default 1e-8.
        first_moment_dtype: "float32", or "bfloat16" for Adam-HP. The unrounded value
            makes the update, the rounded one is stored.
        second_moment_dtype: "float32"; "bfloat16" trains clearly worse (§3.4) and is
            there for that study.
        weight_decay: Rules by path, see `weight_decay.head_and_body`; default none.
        absolute_weight_decay: Decay by the schedule alone.
        clip_norm: Largest global norm of the gradients; default None, no clipping.
        skip_nonfinite: Skip steps with gradients that are not finite.
        learning_rate_multipliers: Rules by path; 0 freezes.
        average_decay: Decay of the Polyak average; default None, no average.
        average_warmup_steps: Steps during which the average is a copy.
        measure: Whether to measure the norms of updates and weights.
        name: First part of the state variables' paths.

    References:
        Zhai et al. 2022, §3.4.
    """

    def __init__(
        self,
        learning_rate: float | Schedule,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        first_moment_dtype: str = "float32",
        second_moment_dtype: str = "float32",
        weight_decay: Iterable[tuple[str, float]] | None = None,
        absolute_weight_decay: bool = False,
        clip_norm: float | None = None,
        skip_nonfinite: bool = False,
        learning_rate_multipliers: Iterable[tuple[str, float]] | None = None,
        average_decay: float | None = None,
        average_warmup_steps: int = 0,
        measure: bool = True,
        name: str = "adam",
    ) -> None:
        super().__init__(
            learning_rate,
            weight_decay=weight_decay,
            absolute_weight_decay=absolute_weight_decay,
            clip_norm=clip_norm,
            skip_nonfinite=skip_nonfinite,
            learning_rate_multipliers=learning_rate_multipliers,
            average_decay=average_decay,
            average_warmup_steps=average_warmup_steps,
            measure=measure,
            name=name,
        )
        for key, beta in (("beta1", beta1), ("beta2", beta2)):
            if not 0 < beta < 1:
                raise ValueError(
                    f"`{key}` must lie between 0 and 1; received {beta!r}."
                )
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        self.first_moment_dtype = checked_dtype(
            "first_moment_dtype", first_moment_dtype
        )
        self.second_moment_dtype = checked_dtype(
            "second_moment_dtype", second_moment_dtype
        )

    def slots(self, shape: Shape) -> Slots:
        """Return both moments, of the weight's shape."""
        return adam_slots(
            shape,
            first_moment_dtype=self.first_moment_dtype,
            second_moment_dtype=self.second_moment_dtype,
        )

    def direction(
        self, gradient: Any, state: Tensors, weights: Any, step: Any
    ) -> tuple[Any, Tensors]:
        """Return `adam_direction` and the new moments."""
        del weights
        direction, m, v = adam_direction(
            gradient,
            state["first_moment"],
            state["second_moment"],
            step,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
        )
        return direction, {"first_moment": m, "second_moment": v}
