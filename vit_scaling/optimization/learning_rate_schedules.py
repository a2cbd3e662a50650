"""Schedules: reciprocal square root, constant, trapezoid, linear, cosine (§3.5)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
from typing import Any, ClassVar

import keras

from vit_scaling.argument_types import NonNegativeFloat, PositiveFloat
from vit_scaling.optimization.base_schedule import Schedule
from vit_scaling.optimization.durations import DurationArgument


@keras.saving.register_keras_serializable("vit_scaling")
@dataclasses.dataclass(eq=False, kw_only=True)
class ReciprocalSqrt(Schedule):
    """The paper's schedule: base / sqrt(1 + (s + shift - W) / timescale) after warm-up.

    With a timescale equal to the warm-up and no shift this is base · sqrt(W / s).
    During the warm-up the factor is that of step W.

    Args:
        base_learning_rate: Peak rate (for shift 0); 8e-4 in Appendix C.
        total_steps: Length of the run, cooldown included.
        warmup_steps: Default 10,000, the paper's for all runs of the study (App. B).
        cooldown_steps: Default 50,000, the paper's for runs of 120,000 steps and
            longer; it takes 10,000 for shorter ones (Tables 14 to 22).
        timescale_steps: Steps over which the rate falls by sqrt(2); default 10,000.
        shift_steps: Steps that count as already done, to continue after a change of
            batch size; default 0.

    References:
        Zhai et al. 2022, §3.5, Appendices B and C.
    """

    open_ended: ClassVar[bool] = True

    warmup_steps: DurationArgument = 10_000
    cooldown_steps: DurationArgument = 50_000
    timescale_steps: DurationArgument = 10_000
    shift_steps: DurationArgument = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timescale_steps == 0:
            raise ValueError("`timescale_steps` must be at least 1; received 0.")

    def decay(self, step: Any, maths: Any) -> Any:
        """Return 1 / sqrt(1 + (max(s, W) + shift - W) / timescale)."""
        behind = maths.maximum(step - self.warmup_steps, 0.0) + self.shift_steps
        return 1.0 / maths.sqrt(1.0 + behind / self.timescale_steps)


@keras.saving.register_keras_serializable("vit_scaling")
@dataclasses.dataclass(eq=False, kw_only=True)
class Constant(Schedule):
    """A constant rate, optionally after a linear fall (the paper's "constant").

    Args:
        base_learning_rate: Peak rate.
        total_steps: Length of the run, cooldown included.
        warmup_steps: Length of the linear warm-up; default none.
        cooldown_steps: Length of the linear cooldown; default none.
        plateau: The constant rate as a fraction of the peak; default 1. In Fig. 7 the
            rate falls from its peak at 10,000 steps to 0.1 of it at 50,000.
        fall_steps: Steps after the warm-up over which it falls there; default none.

    References:
        Zhai et al. 2022, §3.5 and Fig. 7.
    """

    phases: ClassVar[tuple[str, ...]] = ("warmup_steps", "fall_steps", "cooldown_steps")
    open_ended: ClassVar[bool] = True

    plateau: PositiveFloat = 1.0
    fall_steps: DurationArgument = 0

    def decay(self, step: Any, maths: Any) -> Any:
        """Return 1, falling to `plateau` over the first `fall_steps` after warm-up."""
        if not self.fall_steps:
            return maths.maximum(step * 0.0, self.plateau)
        fallen = maths.clip((step - self.warmup_steps) / self.fall_steps, 0.0, 1.0)
        return 1.0 - (1.0 - self.plateau) * fallen


@keras.saving.register_keras_serializable("vit_scaling")
@dataclasses.dataclass(eq=False, kw_only=True)
class Trapezoid(Schedule):
    """Warm-up, a constant rate, cooldown: the third open-ended schedule of the paper.

    Args:
        base_learning_rate: The plateau's rate; 0.125 of rsqrt's peak in Fig. 7.
        total_steps: Length of the run, cooldown included.
        warmup_steps: Length of the linear warm-up, at least 1 step.
        cooldown_steps: Length of the linear cooldown, at least 1 step.

    References:
        Zhai et al. 2022, §3.5 and Fig. 7.
    """

    open_ended: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_steps == 0 or self.cooldown_steps == 0:
            raise ValueError(
                "A trapezoid has two slopes: `warmup_steps` and `cooldown_steps` must "
                f"be at least 1; received {self.warmup_steps!r} and "
                f"{self.cooldown_steps!r}. Without one of them, use Constant."
            )

    def decay(self, step: Any, maths: Any) -> Any:
        """Return 1 at every step."""
        return maths.maximum(step * 0.0, 1.0)


@keras.saving.register_keras_serializable("vit_scaling")
@dataclasses.dataclass(eq=False, kw_only=True)
class Linear(Schedule):
    """Linear decay from the end of the warm-up to the end of the run.

    Args:
        base_learning_rate: Peak rate.
        total_steps: Length of the run.
        warmup_steps: Length of the linear warm-up; default none.
        cooldown_steps: Length of a cooldown that multiplies the decay; default none.
        end_learning_rate: Rate at the last step; default 0.

    References:
        Zhai et al. 2022, §3.5: slightly the best where the length is known.
    """

    end_learning_rate: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.end_learning_rate <= self.base_learning_rate:
            raise ValueError(
                "`end_learning_rate` must be between 0 and `base_learning_rate`; "
                f"received {self.end_learning_rate} and {self.base_learning_rate}."
            )

    def decay(self, step: Any, maths: Any) -> Any:
        """Return the straight line from 1 to end / base."""
        end = self.end_learning_rate / self.base_learning_rate
        return end + (1.0 - end) * self._remaining(step, maths)


@keras.saving.register_keras_serializable("vit_scaling")
@dataclasses.dataclass(eq=False, kw_only=True)
class Cosine(Schedule):
    """Half a cosine from the end of the warm-up to the end of the run.

    Args:
        base_learning_rate: Peak rate; 0.03 or 0.01 for fine-tuning (App. D).
        total_steps: Length of the run; 20,000 in Appendix D.
        warmup_steps: Length of the linear warm-up; default none, 500 in Appendix D.
        cooldown_steps: Length of a cooldown that multiplies the decay; default none.

    References:
        Zhai et al. 2022, Appendix D.
    """

    def decay(self, step: Any, maths: Any) -> Any:
        """Return (1 + cos(π · progress)) / 2."""
        # Written as sin²(π / 2 · remaining), which keeps its digits near the end.
        return maths.square(maths.sin(0.5 * math.pi * self._remaining(step, maths)))
