"""Adafactor as the paper modified it for ViT-G: half a state per parameter (§3.4)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from typing import Any

from vit_scaling.argument_types import (
    Decay,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from vit_scaling.optimization.update_rule import (
    Shape,
    Slot,
    Slots,
    StateDtype,
    Tensors,
    UpdateRule,
)

# Smallest scale that `scale_by_parameters` gives a weight (Shazeer & Stern 2018, ε₂).
MIN_SCALE = 1e-3


@dataclasses.dataclass(frozen=True)
class Adafactor(UpdateRule):
    """The paper's Adafactor: bfloat16 momentum, factored second moment, β₂ ≤ 0.999.

    For every weight, at update t:

        1 - β₂ = max(1 - beta2_cap, (t - decay_offset)^-decay_exponent)
        u = gradient / root of the (factored) second moment
        u = u clipped to an RMS of clipping_threshold              (off by default)
        u = u · max(1e-3, RMS(w))                                  (off by default)
        m = momentum · m + (1 - momentum) · u;  direction = m      (m stored rounded)

    Bytes of state per parameter: slightly over 2.

    The original (Shazeer & Stern 2018, without relative step sizes) is `momentum=None,
    beta2_cap=None, clipping_threshold=1.0, scale_by_parameters=True,
    min_size_to_factor=128`, the last as in Optax.

    Args:
        momentum: Decay of the first moment, an average without bias correction; default
            0.9 (App. B). None keeps no first moment.
        momentum_dtype: Dtype in which it is stored; default "bfloat16". The direction
            is the unrounded value.
        beta2_cap: Largest decay of the second moment; default 0.999 (§3.4). None has no
            limit.
        decay_exponent: How fast that decay approaches 1; default 0.8.
        decay_offset: Updates that do not count in t, to fine-tune from existing state;
            default 0.
        clipping_threshold: Largest RMS of a weight's update; default None, not clipped.
        scale_by_parameters: Whether an update is multiplied by the weight's RMS;
            default False.
        epsilon: Added to the squared gradient; default 1e-30.
        min_size_to_factor: A second moment is factored over the two largest axes of the
            weight if both have this size; default 32. None never factors.
        second_moment_dtype: "float32"; others are supported for studies.

    References:
        Zhai et al. 2022, §3.4, Appendices B and C.
    """

    momentum: Decay | None = 0.9
    momentum_dtype: StateDtype = "bfloat16"
    beta2_cap: Decay | None = 0.999
    decay_exponent: PositiveFloat = 0.8
    decay_offset: NonNegativeInt = 0
    clipping_threshold: PositiveFloat | None = None
    scale_by_parameters: bool = False
    epsilon: NonNegativeFloat = 1e-30
    min_size_to_factor: PositiveInt | None = 32
    second_moment_dtype: StateDtype = "float32"

    def slots(self, shape: Shape) -> Slots:
        """Return the first moment, and the second complete or as two factors."""
        slots, dtype = {}, self.second_moment_dtype
        if self.momentum is not None:
            slots["first_moment"] = Slot(shape, self.momentum_dtype)
        axes = factored_axes(shape, self.min_size_to_factor)
        if axes is None:
            return {**slots, "second_moment": Slot(shape, dtype)}
        second, largest = axes
        row, column = _without(shape, largest), _without(shape, second)
        return {
            **slots,
            "second_moment_row": Slot(row, dtype),
            "second_moment_column": Slot(column, dtype),
        }

    def direction(
        self, gradient: Any, state: Tensors, weights: Any, step: Any
    ) -> tuple[Any, Tensors]:
        """Return the direction of the class's formula, and the new moments."""
        import tensorflow as tf

        new_fraction = tf.pow(step - self.decay_offset, -self.decay_exponent)  # 1 - β₂
        if self.beta2_cap is not None:
            new_fraction = tf.maximum(new_fraction, 1.0 - self.beta2_cap)
        axes = factored_axes(tuple(gradient.shape), self.min_size_to_factor)
        squared = tf.square(gradient) + self.epsilon
        if axes is None:
            update, new = _normalize(gradient, squared, state, new_fraction)
        else:
            update, new = _normalize_factored(
                gradient, squared, state, new_fraction, axes
            )
        if self.clipping_threshold is not None:
            update = update / tf.maximum(1.0, _rms(update) / self.clipping_threshold)
        if self.scale_by_parameters:
            update = update * tf.maximum(_rms(weights), MIN_SCALE)
        if self.momentum is not None:
            kept = self.momentum
            update = kept * state["first_moment"] + (1.0 - kept) * update
            new["first_moment"] = update
        return update, new


def factored_axes(shape: Shape, min_size: int | None) -> tuple[int, int] | None:
    """Return (second largest axis, largest axis), or None if they are not factored.

    Axes are sorted by size; of equal ones the later counts as larger. So the query
    kernel (width, heads, head width) is factored per head, and a patch embedding of
    14 x 14 x 3 x width not at all.

    Args:
        shape: Shape of the weight.
        min_size: Smallest size of the second largest axis to factor; None never does.
    """
    if len(shape) < 2 or min_size is None:
        return None
    *_, second, largest = sorted(range(len(shape)), key=lambda axis: shape[axis])
    return (second, largest) if shape[second] >= min_size else None


def _normalize(
    gradient: Any, squared: Any, state: Tensors, new_fraction: Any
) -> tuple[Any, Tensors]:
    """Divide the gradient by the root of a complete second moment."""
    import tensorflow as tf

    v = (1.0 - new_fraction) * state["second_moment"] + new_fraction * squared
    return gradient * tf.math.rsqrt(v), {"second_moment": v}


def _normalize_factored(
    gradient: Any,
    squared: Any,
    state: Tensors,
    new_fraction: Any,
    axes: tuple[int, int],
) -> tuple[Any, Tensors]:
    """Divide the gradient by the root of a factored second moment.

    The row is the second moment averaged over the largest axis, the column averaged
    over the second largest.
    """
    import tensorflow as tf

    from vit_scaling.optimization.reductions import mean_along

    second, largest = axes
    row, column = state["second_moment_row"], state["second_moment_column"]
    row = (1.0 - new_fraction) * row + new_fraction * mean_along(squared, largest)
    column = (1.0 - new_fraction) * column + new_fraction * mean_along(squared, second)
    # Position in `row`, which no longer has the largest axis.
    moved = second - 1 if second > largest else second
    row_root = tf.math.rsqrt(row / tf.reduce_mean(row, axis=moved, keepdims=True))
    column_root = tf.math.rsqrt(column)
    direction = (
        gradient
        * tf.expand_dims(row_root, largest)
        * tf.expand_dims(column_root, second)
    )
    return direction, {"second_moment_row": row, "second_moment_column": column}


def _rms(values: Any) -> Any:
    """Return the root of the mean of squares, a scalar."""
    import tensorflow as tf

    return tf.sqrt(tf.reduce_mean(tf.square(values)))


def _without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]
