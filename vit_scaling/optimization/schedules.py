"""Learning-rate schedules: a decay, a linear warm-up and a linear cooldown (§3.5).

For step s (0-based), total T, warm-up W and cooldown K, every schedule is

    base · decay(s) · min(1, s / W) · min(1, (T - s) / K)

so that the update of step s uses `schedule(s)` and the rate reaches 0 at step T.
The decay of `ReciprocalSqrt`, `Constant` and `Trapezoid` does not know T: a run under
one of them can be continued, or cooled down from any of its steps (`branch`).
"""
# SPDX-License-Identifier: Apache-2.0

import math
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from vit_scaling.optimization.configuration import constructor_config
from vit_scaling.optimization.lengths import Length, checked, length_in_steps

# Steps are float32 in the graph, which holds every whole number up to here.
MOST_STEPS = 2**24


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The common part of all schedules; a subclass writes `decay`.

    Args:
        base_learning_rate: The rate that the factors multiply.
        total_steps: Length of the run. Like every length here it may be a number of
            steps or a pair in epochs, examples or percent (see `lengths.Length`); those
            that need the data's size are settled by `in_steps`.
        warmup_steps: Length of the linear warm-up from 0.
        cooldown_steps: Length of the linear cooldown to 0, the last of `total_steps`.

    Raises:
        ValueError: A value is out of range, or warm-up and cooldown exceed the total.
    """

    # Names of the arguments that are lengths, the total first.
    lengths: ClassVar[tuple[str, ...]] = (
        "total_steps",
        "warmup_steps",
        "cooldown_steps",
    )
    # Whether the decay stays as it is when the total changes.
    open_ended: ClassVar[bool] = False

    # In steps, or as they were given until `in_steps` settles them.
    total_steps: Any
    warmup_steps: Any
    cooldown_steps: Any

    def __init__(
        self,
        base_learning_rate: float,
        *,
        total_steps: Length,
        warmup_steps: Length = 0,
        cooldown_steps: Length = 0,
    ) -> None:
        self.base_learning_rate = _positive("base_learning_rate", base_learning_rate)
        self.total_steps = checked("total_steps", total_steps)
        if isinstance(total_steps, list | tuple) and total_steps[0] == "percent":
            raise ValueError(
                "`total_steps` is what percent are taken of: give it in steps, epochs "
                f"or examples; received {total_steps!r}."
            )
        self.warmup_steps = self._length("warmup_steps", warmup_steps)
        self.cooldown_steps = self._length("cooldown_steps", cooldown_steps)
        if self.resolved:
            self._check_lengths()

    def decay(self, step: Any, maths: Any) -> Any:
        """Return the factor of the base rate at `step`, warm-up and cooldown aside.

        Args:
            step: Step, a float64 of NumPy or a float32 tensor.
            maths: `numpy` or `keras.ops`: the functions to compute with.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `decay`.")

    def __call__(self, step: Any) -> Any:
        """Return the rate of `step`, a scalar integer tensor, as a float32 tensor."""
        self._check_resolved()
        return self.base_learning_rate * self._factor(ops.cast(step, "float32"), ops)

    def at(self, step: float) -> float:
        """Return the rate of `step`, computed in float64."""
        self._check_resolved()
        return float(self.base_learning_rate * self._factor(np.float64(step), np))

    def in_steps(
        self, *, batch_size: int, train_examples: int | None = None
    ) -> "Schedule":
        """Return this schedule with every length in steps.

        Args:
            batch_size: Global batch, in examples.
            train_examples: Size of the training set; needed for lengths in epochs.

        Raises:
            ValueError: A length needs what was not given, or they do not fit together.
        """
        known = {"batch_size": batch_size, "train_examples": train_examples}
        config = self.get_config()
        total = length_in_steps("total_steps", config["total_steps"], **known)
        for name in self.lengths:
            config[name] = length_in_steps(
                name, config[name], total_steps=total, **known
            )
        return type(self)(**config)

    def branch(self, start_step: int, cooldown_steps: int) -> "Schedule":
        """Return the schedule that follows this one to `start_step`, then cools down.

        The branch ends at `start_step + cooldown_steps`, with a rate of 0 (§3.5: one
        long run serves many durations).

        Raises:
            ValueError: The decay depends on the total, the branch is empty, or it
                starts in this schedule's warm-up or cooldown.
        """
        self._check_resolved()
        if not self.open_ended:
            raise ValueError(
                f"A cooldown cannot branch off {type(self).__name__}: its decay "
                "depends on the total. Use ReciprocalSqrt, Constant or Trapezoid."
            )
        last = self.total_steps - self.cooldown_steps
        if not self.warmup_steps <= start_step <= last or cooldown_steps < 1:
            raise ValueError(
                f"A branch must start between the end of the warm-up "
                f"({self.warmup_steps}) and the cooldown ({last}), and last at least 1 "
                f"step; received start_step={start_step}, "
                f"cooldown_steps={cooldown_steps}."
            )
        config = self.get_config()
        config["total_steps"] = start_step + cooldown_steps
        config["cooldown_steps"] = cooldown_steps
        return type(self)(**config)

    @property
    def resolved(self) -> bool:
        """Whether every length set so far is a number of steps."""
        return all(isinstance(getattr(self, name, 0), int) for name in self.lengths)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return constructor_config(self)

    def _length(self, name: str, length: Length) -> Length:
        """Return a length, in steps where that needs nothing but the total."""
        length = checked(name, length)
        percent = not isinstance(length, int) and length[0] == "percent"
        if percent and isinstance(self.total_steps, int):
            return length_in_steps(name, length, total_steps=self.total_steps)
        return length

    def _factor(self, step: Any, maths: Any) -> Any:
        factor = self.decay(step, maths)
        if self.warmup_steps:
            factor = factor * maths.minimum(1.0, step / self.warmup_steps)
        if self.cooldown_steps:
            left = (self.total_steps - step) / self.cooldown_steps
            factor = factor * maths.clip(left, 0.0, 1.0)
        return factor

    def _remaining(self, step: Any, maths: Any) -> Any:
        """Return what is left, 1 to 0, of the steps after the warm-up."""
        # Counted from the end, in exact whole numbers: small rates keep their digits.
        span = max(1, self.total_steps - self.warmup_steps)
        return maths.clip((self.total_steps - step) / span, 0.0, 1.0)

    def _check_resolved(self) -> None:
        if not self.resolved:
            raise ValueError(
                f"{type(self).__name__} has lengths that are not in steps: "
                f"{ {name: getattr(self, name) for name in self.lengths} }. Call "
                "`schedule.in_steps(batch_size=…, train_examples=…)` first."
            )

    def _check_lengths(self, fall: Any = 0) -> None:
        total = self.total_steps
        if not 1 <= total <= MOST_STEPS:
            raise ValueError(
                f"`total_steps` must lie between 1 and {MOST_STEPS:_}; received "
                f"{total}."
            )
        if self.warmup_steps + fall + self.cooldown_steps > total:
            raise ValueError(
                f"The phases must not exceed `total_steps` = {total}; received "
                f"warmup_steps={self.warmup_steps}, fall_steps={fall}, "
                f"cooldown_steps={self.cooldown_steps}. Shorten them, or train longer."
            )


@keras.saving.register_keras_serializable("vit_scaling")
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
        shift_steps: Steps that count as already behind, to go on after a change of
            batch size; default 0.

    References:
        Zhai et al. 2022, §3.5, Appendices B and C.
    """

    lengths: ClassVar[tuple[str, ...]] = (
        *Schedule.lengths,
        "timescale_steps",
        "shift_steps",
    )
    open_ended: ClassVar[bool] = True

    def __init__(
        self,
        base_learning_rate: float,
        *,
        total_steps: Length,
        warmup_steps: Length = 10_000,
        cooldown_steps: Length = 50_000,
        timescale_steps: Length = 10_000,
        shift_steps: Length = 0,
    ) -> None:
        super().__init__(
            base_learning_rate,
            total_steps=total_steps,
            warmup_steps=warmup_steps,
            cooldown_steps=cooldown_steps,
        )
        self.timescale_steps = self._length("timescale_steps", timescale_steps)
        self.shift_steps = self._length("shift_steps", shift_steps)
        if self.timescale_steps == 0:
            raise ValueError("`timescale_steps` must be at least 1; received 0.")

    def decay(self, step: Any, maths: Any) -> Any:
        """Return 1 / sqrt(1 + (max(s, W) + shift - W) / timescale)."""
        behind = maths.maximum(step - self.warmup_steps, 0.0) + self.shift_steps
        return 1.0 / maths.sqrt(1.0 + behind / self.timescale_steps)


@keras.saving.register_keras_serializable("vit_scaling")
class Constant(Schedule):
    """A constant rate, if asked for after a linear fall (the paper's "constant").

    Args:
        base_learning_rate: Peak rate.
        total_steps: Length of the run, cooldown included.
        warmup_steps: Length of the linear warm-up; default none.
        cooldown_steps: Length of the linear cooldown; default none.
        plateau: The constant as a share of the peak; default 1. In Fig. 7 the rate
            falls from its peak at 10,000 steps to 0.1 of it at 50,000, then stays.
        fall_steps: Steps after the warm-up over which it falls there; default none.

    References:
        Zhai et al. 2022, §3.5 and Fig. 7.
    """

    lengths: ClassVar[tuple[str, ...]] = (*Schedule.lengths, "fall_steps")
    open_ended: ClassVar[bool] = True

    def __init__(
        self,
        base_learning_rate: float,
        *,
        total_steps: Length,
        warmup_steps: Length = 0,
        cooldown_steps: Length = 0,
        plateau: float = 1.0,
        fall_steps: Length = 0,
    ) -> None:
        super().__init__(
            base_learning_rate,
            total_steps=total_steps,
            warmup_steps=warmup_steps,
            cooldown_steps=cooldown_steps,
        )
        self.plateau = _positive("plateau", plateau)
        self.fall_steps: Any = self._length("fall_steps", fall_steps)
        if self.resolved:
            self._check_lengths(fall=self.fall_steps)

    def decay(self, step: Any, maths: Any) -> Any:
        """Return 1, falling to `plateau` over the first `fall_steps` after warm-up."""
        if not self.fall_steps:
            return maths.maximum(step * 0.0, self.plateau)
        fallen = maths.clip((step - self.warmup_steps) / self.fall_steps, 0.0, 1.0)
        return 1.0 - (1.0 - self.plateau) * fallen


@keras.saving.register_keras_serializable("vit_scaling")
class Trapezoid(Schedule):
    """Warm-up, a constant rate, cooldown: the paper's third schedule without an end.

    Args:
        base_learning_rate: The plateau's rate; 0.125 of rsqrt's peak in Fig. 7.
        total_steps: Length of the run, cooldown included.
        warmup_steps: Length of the linear warm-up, at least 1 step.
        cooldown_steps: Length of the linear cooldown, at least 1 step.

    References:
        Zhai et al. 2022, §3.5 and Fig. 7.
    """

    open_ended: ClassVar[bool] = True

    def __init__(
        self,
        base_learning_rate: float,
        *,
        total_steps: Length,
        warmup_steps: Length,
        cooldown_steps: Length,
    ) -> None:
        super().__init__(
            base_learning_rate,
            total_steps=total_steps,
            warmup_steps=warmup_steps,
            cooldown_steps=cooldown_steps,
        )
        if self.warmup_steps == 0 or self.cooldown_steps == 0:
            raise ValueError(
                "A trapezoid has two slopes: `warmup_steps` and `cooldown_steps` must "
                f"be at least 1; received {warmup_steps!r} and {cooldown_steps!r}. "
                "Without one of them, use Constant."
            )

    def decay(self, step: Any, maths: Any) -> Any:
        """Return 1 at every step."""
        return maths.maximum(step * 0.0, 1.0)


@keras.saving.register_keras_serializable("vit_scaling")
class Linear(Schedule):
    """Linear decay from the end of the warm-up to the end of the run.

    Args:
        base_learning_rate: Peak rate.
        total_steps: Length of the run.
        warmup_steps: Length of the linear warm-up; default none.
        cooldown_steps: Length of a cooldown laid over the decay; default none.
        end_learning_rate: Rate at the last step; default 0.

    References:
        Zhai et al. 2022, §3.5: the best by a little where the length is known.
    """

    def __init__(
        self,
        base_learning_rate: float,
        *,
        total_steps: Length,
        warmup_steps: Length = 0,
        cooldown_steps: Length = 0,
        end_learning_rate: float = 0.0,
    ) -> None:
        super().__init__(
            base_learning_rate,
            total_steps=total_steps,
            warmup_steps=warmup_steps,
            cooldown_steps=cooldown_steps,
        )
        if not 0 <= end_learning_rate <= base_learning_rate:
            raise ValueError(
                "`end_learning_rate` must lie between 0 and `base_learning_rate`; "
                f"received {end_learning_rate} and {base_learning_rate}."
            )
        self.end_learning_rate = float(end_learning_rate)

    def decay(self, step: Any, maths: Any) -> Any:
        """Return the straight line from 1 to end / base."""
        end = self.end_learning_rate / self.base_learning_rate
        return end + (1.0 - end) * self._remaining(step, maths)


@keras.saving.register_keras_serializable("vit_scaling")
class Cosine(Schedule):
    """Half a cosine from the end of the warm-up to the end of the run.

    Args:
        base_learning_rate: Peak rate; 0.03 or 0.01 for fine-tuning (App. D).
        total_steps: Length of the run; 20,000 in Appendix D.
        warmup_steps: Length of the linear warm-up; default none, 500 in Appendix D.
        cooldown_steps: Length of a cooldown laid over the decay; default none.

    References:
        Zhai et al. 2022, Appendix D.
    """

    def decay(self, step: Any, maths: Any) -> Any:
        """Return (1 + cos(π · progress)) / 2."""
        # Written as sin²(π / 2 · remaining), which keeps its digits near the end.
        return maths.square(maths.sin(0.5 * math.pi * self._remaining(step, maths)))


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"`{name}` must be a number; received {value!r}.")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"`{name}` must be finite and above 0; received {value!r}.")
    return float(value)
