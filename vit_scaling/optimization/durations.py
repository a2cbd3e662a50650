"""Durations in steps, epochs, examples or percent, and their conversion to steps."""
# SPDX-License-Identifier: Apache-2.0

import math
from typing import Annotated, Any, TypeAlias

from vit_scaling.argument_types import Check

# A number of steps, or a pair such as ("epochs", 5): values that gin can bind.
Duration: TypeAlias = int | tuple[str, float]

UNITS = ("steps", "epochs", "examples", "percent")


def check_duration(name: str, duration: Duration) -> Duration:
    """Return `duration` as an integer of steps or a `(unit, amount)` pair.

    Args:
        name: Name of the argument, for the errors.
        duration: Steps, or a pair of a unit of `UNITS` and an amount. Percent counts
            from 0 to 100, of the run's total.

    Raises:
        ValueError: It is neither, or the amount is negative, not finite, or over 100 %.
    """
    expected = f"`{name}` must be a number of steps or a pair such as ('epochs', 5)"
    if isinstance(duration, list | tuple):
        if len(duration) != 2 or duration[0] not in UNITS:
            raise ValueError(
                f"{expected} with a unit of {', '.join(UNITS)}; received {duration!r}."
            )
        unit, amount = duration
    else:
        unit, amount = "steps", duration
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise ValueError(f"{expected}; received {duration!r}.")
    if not math.isfinite(amount) or amount < 0:
        raise ValueError(f"{expected}, finite and at least 0; received {duration!r}.")
    if unit == "percent" and amount > 100:
        raise ValueError(
            f"`{name}` in percent must be from 0 to 100; received {duration!r}."
        )
    if unit != "steps":
        return unit, amount
    if amount != int(amount):
        raise ValueError(
            f"`{name}` must be a whole number of steps; received {duration!r}."
        )
    return int(amount)


# As an argument of a schedule, checked where it is bound.
DurationArgument: TypeAlias = Annotated[
    Any,
    Check(
        lambda value: check_duration("duration", value),
        f"a number of steps or a pair of a unit ({', '.join(UNITS)}) and an amount",
    ),
]


def duration_in_steps(
    name: str,
    duration: Duration,
    *,
    batch_size: int | None = None,
    train_examples: int | None = None,
    total_steps: int | None = None,
) -> int:
    """Return a duration as the nearest number of steps, 0 only if it is 0.

    Args:
        name: Name of the argument, for the errors.
        duration: As `check_duration` takes it.
        batch_size: Global batch, in examples; epochs and examples need it.
        train_examples: Size of the training set; epochs need it.
        total_steps: Duration of the whole run; percent needs it.

    Raises:
        ValueError: The duration is malformed, or an argument for its unit is missing.
    """
    duration = check_duration(name, duration)
    if isinstance(duration, int):
        return duration
    unit, amount = duration
    needs = {
        "epochs": {"batch_size": batch_size, "train_examples": train_examples},
        "examples": {"batch_size": batch_size},
        "percent": {"total_steps": total_steps},
    }[unit]
    missing = [key for key, value in needs.items() if not value]
    if missing:
        raise ValueError(
            f"`{name}` = {duration!r} needs {' and '.join(missing)} to be turned into "
            f"steps; give {' and '.join(missing)}, or the duration in steps."
        )
    steps = (
        amount
        * {
            "epochs": (train_examples or 0) / (batch_size or 1),
            "examples": 1 / (batch_size or 1),
            "percent": (total_steps or 0) / 100,
        }[unit]
    )
    return max(1, round(steps)) if amount else 0
