"""Values of weights by rules over variable paths: the first matching rule wins."""
# SPDX-License-Identifier: Apache-2.0

import math
import re
from collections.abc import Iterable
from typing import Any, TypeAlias

# ((regular expression over the complete variable path, value), …).
PathRules: TypeAlias = tuple[tuple[str, float], ...]


def check_path_rules(name: str, rules: Iterable[tuple[str, float]] | None) -> PathRules:
    """Return the rules as tuples.

    Args:
        name: Name of the argument, for the errors.
        rules: Pairs; None has no rules.

    Raises:
        ValueError: A rule is not a pair, its expression does not compile, or its value
            is negative or not finite.
    """
    checked = []
    for rule in rules or ():
        if not isinstance(rule, list | tuple) or len(rule) != 2:
            raise ValueError(
                f"`{name}` must be pairs of a regular expression over variable paths "
                f"and a number, such as (('(.*/)?head/kernel', 3.0),); received "
                f"{rule!r}."
            )
        pattern, value = rule
        check_pattern(name, pattern)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(
                f"`{name}`: {pattern!r} needs a number; received {value!r}."
            )
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(
                f"`{name}`: the value of {pattern!r} must be finite and at least 0; "
                f"received {value!r}."
            )
        checked.append((pattern, float(value)))
    return tuple(checked)


def check_pattern(name: str, pattern: Any) -> None:
    """Raise ValueError unless `pattern` is a regular expression."""
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(
            f"`{name}`: {pattern!r} is not a regular expression: {error}."
        ) from error


def value_for(path: str, rules: PathRules, *, default: float) -> float:
    """Return the value of the first rule that matches all of `path`, else `default`."""
    for pattern, value in rules:
        if re.fullmatch(pattern, path):
            return value
    return default
