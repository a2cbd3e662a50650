"""Adafactor as the paper modified it for ViT-G: half a state per parameter (§3.4)."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from vit_scaling.optimization.base import Optimizer, Tensors
from vit_scaling.optimization.schedules import Schedule
from vit_scaling.optimization.state_size import (
    Shape,
    Slots,
    adafactor_slots,
    checked_dtype,
    factored_axes,
)
from vit_scaling.optimization.tensors import mean_along

# Smallest scale that `scale_by_parameters` gives a weight (Shazeer & Stern 2018, ε₂).
LEAST_SCALE = 1e-3


def new_share(
    step: Any, *, exponent: float, offset: int, beta2_cap: float | None
) -> Any:
    """Return 1 - β₂ of an update, β₂ = min(beta2_cap, 1 - t^-exponent).

    Args:
        step: Number of the update, 1 for the first.
        exponent: 0.8 (Shazeer & Stern 2018).
        offset: Updates not to count, t = step - offset.
        beta2_cap: Largest β₂; None for none, as in the original.
    """
    share = tf.pow(step - offset, -exponent)
    return share if beta2_cap is None else tf.maximum(share, 1.0 - beta2_cap)


def factored_direction(
    gradient: Any,
    row: Any,
    column: Any,
    share: Any,
    *,
    axes: tuple[int, int],
    eps: float,
) -> tuple[Any, Any, Any]:
    """Divide by the root of a factored second moment; returns (direction, row, column).

    Args:
        gradient: Gradient, float32 or float64 (a tensor or a NumPy array).
        row: Second moment averaged over the largest axis.
        column: Second moment averaged over the second largest axis.
        share: What 1 - β₂ is in this update.
        axes: (second largest axis, largest axis), as `factored_axes` returns.
        eps: Added to the squared gradient.
    """
    second, largest = axes
    squared = tf.square(gradient) + eps
    row = (1.0 - share) * row + share * mean_along(squared, largest)
    column = (1.0 - share) * column + share * mean_along(squared, second)
    # `row` has lost the largest axis, which moves the second one if it came after.
    moved = second - 1 if second > largest else second
    row_root = tf.math.rsqrt(row / tf.reduce_mean(row, axis=moved, keepdims=True))
    column_root = tf.math.rsqrt(column)
    direction = (
        gradient
        * tf.expand_dims(row_root, largest)
        * tf.expand_dims(column_root, second)
    )
    return direction, row, column


def unfactored_direction(
    gradient: Any, v: Any, share: Any, *, eps: float
) -> tuple[Any, Any]:
    """Divide by the root of a full second moment; returns (direction, v)."""
    v = (1.0 - share) * v + share * (tf.square(gradient) + eps)
    return gradient * tf.math.rsqrt(v), v


def clipped_by_rms(update: Any, threshold: float) -> Any:
    """Scale an update down to a root mean square of `threshold` at most."""
    return update / tf.maximum(1.0, root_mean_square(update) / threshold)


def root_mean_square(values: Any) -> Any:
    """Return the root of the mean of squares, a scalar."""
    return tf.sqrt(tf.reduce_mean(tf.square(values)))


@keras.saving.register_keras_serializable("vit_scaling")
class Adafactor(Optimizer):
    """The paper's Adafactor: bfloat16 momentum, factored second moment, β₂ ≤ 0.999.

    For every weight, at update t:

        1 - β₂ = max(1 - beta2_cap, t^-decay_exponent)
        u = gradient / root of the (factored) second moment
        u = u clipped to an RMS of clipping_threshold              (off by default)
        u = u · max(1e-3, RMS(w))                                  (off by default)
        m = momentum · m + (1 - momentum) · u;  direction = m      (m stored rounded)

    Weights of two dimensions or more are factored over their two largest axes, if both
    reach `least_factored`. Bytes of state per parameter: 2, and a little.

    The original (Shazeer & Stern 2018, without relative step sizes) is `momentum=None,
    beta2_cap=None, clipping_threshold=1.0, scale_by_parameters=True,
    least_factored=128`, the last as Optax has it.

    Args:
        learning_rate: See `base.Optimizer`, also for the arguments after `factored`.
        momentum: Decay of the first moment, an average without bias correction; default
            0.9 (App. B). None keeps no first moment.
        momentum_dtype: Dtype in which it is stored; default "bfloat16". The unrounded
            value makes the update.
        beta2_cap: Largest decay of the second moment; default 0.999 (§3.4).
        decay_exponent: How that decay approaches 1; default 0.8.
        decay_offset: Updates not to count in it, to fine-tune from a state; default 0.
        clipping_threshold: Largest RMS of a weight's update; default None, not clipped.
        scale_by_parameters: Multiply an update by the weight's RMS; default False.
        epsilon: Added to the squared gradient; default 1e-30.
        least_factored: Least size of the second largest axis to factor; default 32.
        factored: Whether to factor at all; default True.
        second_moment_dtype: "float32"; another one is for studies.
        weight_decay: Rules by path, see `weight_decay.head_and_body`; default none.
        absolute_weight_decay: Decay by the schedule alone.
        clip_norm: Largest global norm of the gradients; default None, no clipping (the
            paper's configuration has 1.0).
        skip_nonfinite: Skip steps with gradients that are not finite.
        learning_rate_multipliers: Rules by path; 0 freezes.
        average_decay: Decay of the Polyak average; default None, no average.
        average_warmup_steps: Steps during which the average is a copy.
        measure: Whether to measure the norms of updates and weights.
        name: First part of the state variables' paths.

    References:
        Zhai et al. 2022, §3.4, Appendices B and C.
    """

    def __init__(
        self,
        learning_rate: float | Schedule,
        *,
        momentum: float | None = 0.9,
        momentum_dtype: str = "bfloat16",
        beta2_cap: float | None = 0.999,
        decay_exponent: float = 0.8,
        decay_offset: int = 0,
        clipping_threshold: float | None = None,
        scale_by_parameters: bool = False,
        epsilon: float = 1e-30,
        least_factored: int = 32,
        factored: bool = True,
        second_moment_dtype: str = "float32",
        weight_decay: Iterable[tuple[str, float]] | None = None,
        absolute_weight_decay: bool = False,
        clip_norm: float | None = None,
        skip_nonfinite: bool = False,
        learning_rate_multipliers: Iterable[tuple[str, float]] | None = None,
        average_decay: float | None = None,
        average_warmup_steps: int = 0,
        measure: bool = True,
        name: str = "adafactor",
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
        for key, value in (("momentum", momentum), ("beta2_cap", beta2_cap)):
            if value is not None and not 0 < value < 1:
                raise ValueError(
                    f"`{key}` must lie between 0 and 1, or be None; received {value!r}."
                )
        if clipping_threshold is not None and not clipping_threshold > 0:
            raise ValueError(
                "`clipping_threshold` must be above 0, or None for no clipping; "
                f"received {clipping_threshold!r}."
            )
        self.momentum = momentum
        self.momentum_dtype = checked_dtype("momentum_dtype", momentum_dtype)
        self.beta2_cap = beta2_cap
        self.decay_exponent = decay_exponent
        self.decay_offset = decay_offset
        self.clipping_threshold = clipping_threshold
        self.scale_by_parameters = scale_by_parameters
        self.epsilon = epsilon
        self.least_factored = least_factored
        self.factored = factored
        self.second_moment_dtype = checked_dtype(
            "second_moment_dtype", second_moment_dtype
        )

    def slots(self, shape: Shape) -> Slots:
        """Return the first moment, and the second in one piece or as two factors."""
        return adafactor_slots(
            shape,
            first_moment_dtype=None if self.momentum is None else self.momentum_dtype,
            second_moment_dtype=self.second_moment_dtype,
            least_factored=self.least_factored if self.factored else None,
        )

    def direction(
        self, gradient: Any, state: Tensors, weights: Any, step: Any
    ) -> tuple[Any, Tensors]:
        """Return the formula of the class and the new moments."""
        share = new_share(
            step,
            exponent=self.decay_exponent,
            offset=self.decay_offset,
            beta2_cap=self.beta2_cap,
        )
        update, new = self._scaled(gradient, state, share)
        if self.clipping_threshold is not None:
            update = clipped_by_rms(update, self.clipping_threshold)
        if self.scale_by_parameters:
            update = update * tf.maximum(root_mean_square(weights), LEAST_SCALE)
        if self.momentum is not None:
            kept = self.momentum
            update = kept * state["first_moment"] + (1.0 - kept) * update
            new["first_moment"] = update
        return update, new

    def _scaled(self, gradient: Any, state: Tensors, share: Any) -> tuple[Any, Tensors]:
        axes = factored_axes(tuple(gradient.shape), self.least_factored)
        if axes is None or not self.factored:
            update, v = unfactored_direction(
                gradient, state["second_moment"], share, eps=self.epsilon
            )
            return update, {"second_moment": v}
        update, row, column = factored_direction(
            gradient,
            state["second_moment_row"],
            state["second_moment_column"],
            share,
            axes=axes,
            eps=self.epsilon,
        )
        return update, {"second_moment_row": row, "second_moment_column": column}
