"""Decoupled weight decay by rules over variable paths: head and body apart (§3.1)."""
# SPDX-License-Identifier: Apache-2.0

import math
import re
from collections.abc import Iterable
from typing import TypeAlias

# ((regular expression over the whole variable path, value), …): the first match wins.
Rules: TypeAlias = tuple[tuple[str, float], ...]

# The classifier is the layer `head`, alone or inside another model.
HEAD_KERNEL = r"(.*/)?head/kernel"
BODY_KERNEL = r"(.*/)?kernel"


def head_and_body(head: float = 3.0, body: float = 0.03) -> Rules:
    """Return the paper's decay: one strength for the classifier, one for all else.

    Only kernels decay: no bias, no normalisation, no position embedding, no probe.

    Args:
        head: Strength of the classifier's kernel, as the paper writes it; default 3.0,
            that of all its runs (App. B). It multiplies the learning rate of the step.
        body: Strength of every other kernel; default 0.03.

    Returns:
        Rules for the optimizers' `weight_decay`.

    Example:
        >>> head_and_body(head=3.0, body=0.03)
        (('(.*/)?head/kernel', 3.0), ('(.*/)?kernel', 0.03))

    References:
        Zhai et al. 2022, §3.1, Fig. 5, Appendix C (there as 0.03 · 8e-4, times 100 for
        the head, times a schedule of base 1: the same at a base rate of 8e-4).
    """
    return checked_rules("weight_decay", ((HEAD_KERNEL, head), (BODY_KERNEL, body)))


def checked_rules(name: str, rules: Iterable[tuple[str, float]] | None) -> Rules:
    """Return the rules as tuples.

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
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"`{name}`: {pattern!r} is not a regular expression: {error}."
            ) from error
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


def value_for(path: str, rules: Rules, *, default: float) -> float:
    """Return the value of the first rule to match all of `path`, else `default`."""
    for pattern, value in rules:
        if re.fullmatch(pattern, path):
            return value
    return default
