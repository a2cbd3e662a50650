"""SGD with momentum, the paper's optimizer for fine-tuning (Appendix D)."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterable
from typing import Any

import keras

from vit_scaling.optimization.base import Optimizer, Tensors
from vit_scaling.optimization.schedules import Schedule
from vit_scaling.optimization.state_size import (
    Shape,
    Slots,
    checked_dtype,
    momentum_slots,
)


def momentum_direction(
    gradient: Any, m: Any, *, momentum: float, nesterov: bool
) -> tuple[Any, Any]:
    """One step of heavy-ball momentum, m = gradient + momentum · m.

    Args:
        gradient: Gradient, float32 or float64 (a tensor or a NumPy array).
        m: The trace of gradients, of the gradient's dtype.
        momentum: What is kept of m.
        nesterov: Whether to look one step ahead: gradient + momentum · (new m).

    Returns:
        (direction, m).
    """
    m = gradient + momentum * m
    return (gradient + momentum * m if nesterov else m), m


@keras.saving.register_keras_serializable("vit_scaling")
class Momentum(Optimizer):
    """SGD with momentum, whose trace may be stored in bfloat16.

    Args:
        learning_rate: See `base.Optimizer`, also for the arguments after
            `momentum_dtype`. 0.03 or 0.01 in Appendix D.
        momentum: What is kept of the trace; default 0.9, that of the authors' code (the
            paper does not print it). None is plain SGD, without state.
        nesterov: Whether to look one step ahead; default False.
        momentum_dtype: "float32", or "bfloat16": 4 or 2 bytes per parameter. The
            unrounded value makes the update.
        weight_decay: Rules by path; default none, as for fine-tuning (App. D).
        absolute_weight_decay: Decay by the schedule alone.
        clip_norm: Largest global norm of the gradients; default None (App. D has 1.0).
        skip_nonfinite: Skip steps with gradients that are not finite.
        learning_rate_multipliers: Rules by path; 0 freezes.
        average_decay: Decay of the Polyak average; default None. ViT-G was fine-tuned
            with one (App. D); 0.9999 in the paper that it refers to.
        average_warmup_steps: Steps during which the average is a copy.
        measure: Whether to measure the norms of updates and weights.
        name: First part of the state variables' paths.

    References:
        Zhai et al. 2022, Appendix D.
    """

    def __init__(
        self,
        learning_rate: float | Schedule,
        *,
        momentum: float | None = 0.9,
        nesterov: bool = False,
        momentum_dtype: str = "float32",
        weight_decay: Iterable[tuple[str, float]] | None = None,
        absolute_weight_decay: bool = False,
        clip_norm: float | None = None,
        skip_nonfinite: bool = False,
        learning_rate_multipliers: Iterable[tuple[str, float]] | None = None,
        average_decay: float | None = None,
        average_warmup_steps: int = 0,
        measure: bool = True,
        name: str = "momentum",
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
        if momentum is not None and not 0 < momentum < 1:
            raise ValueError(
                "`momentum` must lie between 0 and 1, or be None for plain SGD; "
                f"received {momentum!r}."
            )
        if nesterov and momentum is None:
            raise ValueError("`nesterov` needs a momentum; received momentum=None.")
        self.momentum = momentum
        self.nesterov = nesterov
        self.momentum_dtype = checked_dtype("momentum_dtype", momentum_dtype)

    def slots(self, shape: Shape) -> Slots:
        """Return the trace, of the weight's shape."""
        if self.momentum is None:
            return {}
        return momentum_slots(shape, first_moment_dtype=self.momentum_dtype)

    def direction(
        self, gradient: Any, state: Tensors, weights: Any, step: Any
    ) -> tuple[Any, Tensors]:
        """Return `momentum_direction` and the new trace."""
        del weights, step
        if self.momentum is None:
            return gradient, {}
        direction, m = momentum_direction(
            gradient,
            state["first_moment"],
            momentum=self.momentum,
            nesterov=self.nesterov,
        )
        return direction, {"first_moment": m}
