"""SGD with momentum, the paper's optimizer for fine-tuning (Appendix D)."""
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
class Momentum(UpdateRule):
    """SGD with heavy-ball momentum, m = gradient + momentum · m.

    Bytes of state per parameter: 4, or 2 in bfloat16. Appendix D has a learning rate of
    0.03 or 0.01, no weight decay and `clip_norm=1.0`.

    Args:
        momentum: Fraction of m that is kept; default 0.9, from the authors' code (the
            paper does not print it). None is plain SGD, without state.
        nesterov: Whether the direction is gradient + momentum · (new m); default False.
        momentum_dtype: "float32" or "bfloat16". The direction is computed from the
            unrounded value, the rounded one is stored.

    References:
        Zhai et al. 2022, Appendix D.
    """

    momentum: Decay | None = 0.9
    nesterov: bool = False
    momentum_dtype: StateDtype = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and self.momentum is None:
            raise ValueError("`nesterov` needs a momentum; received momentum=None.")

    def slots(self, shape: Shape) -> Slots:
        """Return m, of the weight's shape."""
        if self.momentum is None:
            return {}
        return {"first_moment": Slot(shape, self.momentum_dtype)}

    def direction(
        self, gradient: Any, state: Tensors, weights: Any, step: Any
    ) -> tuple[Any, Tensors]:
        """Return m, or with Nesterov's gradient + momentum · m, and the new m."""
        if self.momentum is None:
            return gradient, {}
        m = gradient + self.momentum * state["first_moment"]
        direction = gradient + self.momentum * m if self.nesterov else m
        return direction, {"first_moment": m}
