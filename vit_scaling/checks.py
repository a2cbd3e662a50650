"""Checks of numeric arguments, with error messages of one form."""
# SPDX-License-Identifier: Apache-2.0

from typing import Any

import numpy as np

from vit_scaling.argument_types import ValueRange


def check_at_least(minimum: float, **arguments: Any) -> None:
    """Raise unless every argument is at least `minimum`.

    Raises:
        ValueError: One is smaller, or is not a number.

    Example:
        >>> check_at_least(1, batch_size=8, steps=0)
        Traceback (most recent call last):
        ValueError: `steps` must be at least 1; received 0.
    """
    for name, value in arguments.items():
        _check(
            _is_number(value) and value >= minimum, name, f"at least {minimum}", value
        )


def check_above(bound: float, **arguments: Any) -> None:
    """Raise unless every argument is above `bound`.

    Raises:
        ValueError: One is not, or is not a number.
    """
    for name, value in arguments.items():
        _check(_is_number(value) and value > bound, name, f"above {bound}", value)


def check_fraction(**arguments: Any) -> None:
    """Raise unless every argument is above 0 and at most 1.

    Raises:
        ValueError: One is not, or is not a number.
    """
    for name, value in arguments.items():
        valid = _is_number(value) and 0 < value <= 1
        _check(valid, name, "above 0 and at most 1", value)


def check_positive_integer(**arguments: Any) -> None:
    """Raise unless every argument is a whole number of at least 1.

    Raises:
        ValueError: One is not.
    """
    for name, value in arguments.items():
        valid = isinstance(value, int) and not isinstance(value, bool) and value > 0
        _check(valid, name, "a positive integer", value)


def check_power_of_two(**arguments: Any) -> None:
    """Raise unless every argument is a power of two (1, 2, 4, 8, …).

    Raises:
        ValueError: One is not.
    """
    for name, value in arguments.items():
        valid = isinstance(value, int) and value > 0 and not value & (value - 1)
        _check(valid, name, "a power of two", value)


def check_value_range(value_range: ValueRange) -> None:
    """Raise unless the values of pixels 0 and 255 are increasing in every channel.

    Raises:
        ValueError: They are not.
    """
    low, high = np.broadcast_arrays(*map(np.asarray, value_range))
    if not np.all(low < high):
        raise ValueError(
            "`value_range` must be (lowest, highest) with lowest < highest; received "
            f"{value_range}."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(valid: bool, name: str, rule: str, value: Any) -> None:
    if not valid:
        raise ValueError(f"`{name}` must be {rule}; received {value!r}.")
