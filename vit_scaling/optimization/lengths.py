"""Lengths of a run in steps, epochs, examples or percent, and their value in steps."""
# SPDX-License-Identifier: Apache-2.0

import math
from typing import TypeAlias

# A number of steps, or a pair such as ("epochs", 5): plain values that gin can bind.
Length: TypeAlias = int | tuple[str, float]

UNITS = ("steps", "epochs", "examples", "percent")


def checked(name: str, length: Length) -> Length:
    """Return `length` as an integer of steps or a `(unit, amount)` pair.

    Args:
        name: What the errors call it.
        length: Steps, or a pair of a unit out of `UNITS` and an amount. Percent counts
            from 0 to 100, of the run's total.

    Raises:
        ValueError: It is neither, or the amount is negative, not finite, or over 100 %.
    """
    wanted = f"`{name}` must be a number of steps or a pair such as ('epochs', 5)"
    if isinstance(length, list | tuple):
        if len(length) != 2 or length[0] not in UNITS:
            raise ValueError(
                f"{wanted} with a unit out of {', '.join(UNITS)}; received {length!r}."
            )
        unit, amount = length
    else:
        unit, amount = "steps", length
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise ValueError(f"{wanted}; received {length!r}.")
    if not math.isfinite(amount) or amount < 0:
        raise ValueError(f"{wanted}, finite and at least 0; received {length!r}.")
    if unit == "percent" and amount > 100:
        raise ValueError(
            f"`{name}` in percent goes from 0 to 100; received {length!r}."
        )
    if unit != "steps":
        return unit, amount
    if amount != int(amount):
        raise ValueError(
            f"`{name}` must be a whole number of steps; received {length!r}."
        )
    return int(amount)


def length_in_steps(
    name: str,
    length: Length,
    *,
    batch_size: int | None = None,
    train_examples: int | None = None,
    total_steps: int | None = None,
) -> int:
    """Return a length in steps, rounded to the nearest, 0 only if 0 was asked for.

    Args:
        name: What the errors call it.
        length: As `checked` takes it.
        batch_size: Global batch, in examples; epochs and examples need it.
        train_examples: Size of the training set; epochs need it.
        total_steps: Length of the whole run; percent needs it.

    Raises:
        ValueError: The length is malformed, or what its unit needs was not given.
    """
    length = checked(name, length)
    if isinstance(length, int):
        return length
    unit, amount = length
    needs = {
        "epochs": {"batch_size": batch_size, "train_examples": train_examples},
        "examples": {"batch_size": batch_size},
        "percent": {"total_steps": total_steps},
    }[unit]
    missing = [key for key, value in needs.items() if not value]
    if missing:
        raise ValueError(
            f"`{name}` = {length!r} needs {' and '.join(missing)} to be turned into "
            f"steps; give {' and '.join(missing)}, or the length in steps."
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
