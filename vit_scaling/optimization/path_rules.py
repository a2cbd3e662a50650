"""Values of weights by rules over variable paths: the first matching rule wins."""
# SPDX-License-Identifier: Apache-2.0

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from vit_scaling.naming import nearest

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


def check_rules_match(name: str, rules: PathRules, paths: Iterable[str]) -> None:
    """Check that every rule matches a variable, be it one that an earlier rule takes.

    Args:
        name: Name of the argument, for the error.
        rules: Pairs of a regular expression and a value.
        paths: Paths of the variables.

    Raises:
        ValueError: A rule matches none; the message has the nearest paths.
    """
    known = list(paths)
    for pattern, _ in rules:
        if any(re.fullmatch(pattern, path) for path in known):
            continue
        literal = re.sub(r"\(\.\*/\)\?|[^\w/]", "", pattern).rstrip("/")
        depth = literal.count("/") + 1
        layers = ["/".join(path.split("/")[:depth]) for path in known]
        close = nearest(literal, dict.fromkeys([*known, *layers]), count=3)
        listed = ", ".join(close or known[:3])
        raise ValueError(
            f"`{name}`: {pattern!r} matches none of the {len(known)} variables, whose "
            f"{'nearest' if close else 'first'} paths are {listed}. An expression must "
            f"match a whole path; correct it, or leave the rule out."
        )


def describe_rules(
    name: str, rules: PathRules, sizes: Mapping[str, int], *, default: float
) -> list[str]:
    """Return a line for each rule: how many variables and parameters it takes.

    Args:
        name: Name of the argument.
        rules: Pairs of a regular expression and a value.
        sizes: Number of parameters by variable path.
        default: Value of the variables that no rule takes, which have the last line.

    Example:
        >>> rules, sizes = (("a/.*", 0.5),), {"a/b": 9, "c": 1}
        >>> for line in describe_rules("rate", rules, sizes, default=1.0):
        ...     print(line)
        rate 0.5 ('a/.*'): 1 variable(s), 9 parameters
        rate 1 (no rule): 1 variable(s), 1 parameters
    """
    taken: dict[str | None, list[int]] = {pattern: [] for pattern, _ in rules}
    taken[None] = []
    for path, size in sizes.items():
        matches = (p for p, _ in rules if re.fullmatch(p, path))
        taken[next(matches, None)].append(size)
    values: dict[str | None, float] = {None: default}
    values.update(reversed(rules))
    return [
        f"{name} {values[pattern]:g} ({repr(pattern) if pattern else 'no rule'}): "
        f"{len(found)} variable(s), {sum(found):,} parameters"
        for pattern, found in taken.items()
    ]
