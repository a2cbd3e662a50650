"""The frame of every schedule: a decay, a linear warm-up, a linear cooldown (§3.5).

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
        self.base_learning_rate = positive("base_learning_rate", base_learning_rate)
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


def positive(name: str, value: float) -> float:
    """Return `value` as a float.

    Raises:
        ValueError: It is no finite number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"`{name}` must be a number; received {value!r}.")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"`{name}` must be finite and above 0; received {value!r}.")
    return float(value)
