"""The base of all schedules: a decay, a linear warm-up, a linear cooldown (§3.5).

For step s (0-based), total T, warm-up W and cooldown K, every schedule is

    base · decay(s) · min(1, s / W) · min(1, (T - s) / K)

so that the update of step s uses `schedule(s)` and the rate reaches 0 at step T.
The decay of `ReciprocalSqrt`, `Constant` and `Trapezoid` does not depend on T: a run
under one of them can be continued, or cooled down from any of its steps (`branch`).
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from typing import Any, ClassVar

import keras
import numpy as np
from absl import logging
from keras import ops

from vit_scaling.argument_types import PositiveFloat, check_fields
from vit_scaling.optimization.durations import (
    Duration,
    DurationArgument,
    check_duration,
    duration_in_steps,
)
from vit_scaling.optimization.serialization import DataclassConfig

# Steps are float32 in the graph, which represents every whole number up to this one.
MAX_STEPS = 2**24


@dataclasses.dataclass(eq=False)
class Schedule(DataclassConfig, keras.optimizers.schedules.LearningRateSchedule):
    """The part common to all schedules; a subclass adds fields and `decay`.

    Fields whose names end in `_steps` are lengths. Each may be a number of steps or a
    pair in epochs, examples or percent (see `durations.Duration`); those that depend on
    the data's size are replaced by `in_steps`.

    Args:
        base_learning_rate: The rate that the factors multiply.
        total_steps: Length of the run.
        warmup_steps: Length of the linear warm-up from 0; default none.
        cooldown_steps: Length of the linear cooldown to 0, the last of `total_steps`;
            default none.

    Raises:
        ValueError: A value is out of range.
    """

    # Names of the lengths that must fit into the total.
    phases: ClassVar[tuple[str, ...]] = ("warmup_steps", "cooldown_steps")
    # Whether the decay does not depend on the total.
    open_ended: ClassVar[bool] = False

    base_learning_rate: PositiveFloat
    _: dataclasses.KW_ONLY
    # `Duration`s when given, numbers of steps once they are known.
    total_steps: DurationArgument
    warmup_steps: DurationArgument = 0
    cooldown_steps: DurationArgument = 0

    def __post_init__(self) -> None:
        self.total_steps = check_duration("total_steps", self.total_steps)
        if isinstance(self.total_steps, tuple) and self.total_steps[0] == "percent":
            raise ValueError(
                "`total_steps` is what percent are taken of: give it in steps, epochs "
                f"or examples; received {self.total_steps!r}."
            )
        for name, length in self._lengths().items():
            setattr(self, name, self._make_steps(name, length))
        check_fields(self)
        if self.resolved:
            self._fit_phases()

    def decay(self, step: Any, maths: Any) -> Any:
        """Return the factor of the base rate at `step`, without warm-up and cooldown.

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
        total = duration_in_steps("total_steps", self.total_steps, **known)
        lengths: dict[str, Any] = {
            name: duration_in_steps(name, length, total_steps=total, **known)
            for name, length in self._lengths().items()
        }
        return dataclasses.replace(self, **lengths)  # type: ignore[arg-type]

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
        total_steps = start_step + cooldown_steps
        return dataclasses.replace(
            self, total_steps=total_steps, cooldown_steps=cooldown_steps
        )

    @property
    def resolved(self) -> bool:
        """Whether all lengths are numbers of steps."""
        return all(isinstance(length, int) for length in self._lengths().values())

    def _lengths(self) -> dict[str, Any]:
        return {k: v for k, v in self.get_config().items() if k.endswith("_steps")}

    def _make_steps(self, name: str, duration: Duration) -> Duration:
        """Return a length, in steps if only the total is needed for that."""
        duration = check_duration(name, duration)
        percent = isinstance(duration, tuple) and duration[0] == "percent"
        if percent and isinstance(self.total_steps, int):
            return duration_in_steps(name, duration, total_steps=self.total_steps)
        return duration

    def _factor(self, step: Any, maths: Any) -> Any:
        factor = self.decay(step, maths)
        if self.warmup_steps:
            factor = factor * maths.minimum(1.0, step / self.warmup_steps)
        if self.cooldown_steps:
            left = (self.total_steps - step) / self.cooldown_steps
            factor = factor * maths.clip(left, 0.0, 1.0)
        return factor

    def _remaining(self, step: Any, maths: Any) -> Any:
        """Return the fraction, 1 to 0, that is left of the steps after the warm-up."""
        # Counted from the end, in exact whole numbers: small rates keep their digits.
        span = max(1, self.total_steps - self.warmup_steps)
        return maths.clip((self.total_steps - step) / span, 0.0, 1.0)

    def _check_resolved(self) -> None:
        if not self.resolved:
            raise ValueError(
                f"{type(self).__name__} has lengths that are not in steps: "
                f"{self._lengths()}. Call "
                "`schedule.in_steps(batch_size=…, train_examples=…)` first."
            )

    def _fit_phases(self) -> None:
        """Shorten warm-up and cooldown in proportion if they exceed the run."""
        total = self.total_steps
        if not 1 <= total <= MAX_STEPS:
            raise ValueError(
                f"`total_steps` must be between 1 and {MAX_STEPS:_}; received {total}."
            )
        phases = {name: getattr(self, name) for name in self.phases}
        longest = sum(phases.values())
        if longest <= total:
            return
        for name, steps in phases.items():
            setattr(self, name, steps * total // longest)
        logging.warning(
            "The phases %s exceed the run's %d steps: they are shortened to %s.",
            ", ".join(f"{name}={steps}" for name, steps in phases.items()),
            total,
            ", ".join(f"{name}={getattr(self, name)}" for name in phases),
        )


def find_base_rate(learning_rate: Any) -> float:
    """Return the base rate of an argument `learning_rate`.

    Keras makes a variable of it, which has a copy on every replica and no single value.
    """
    if isinstance(learning_rate, Schedule):
        return float(learning_rate.base_learning_rate)
    if isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return float(learning_rate(0))
    return float(learning_rate() if callable(learning_rate) else learning_rate)
