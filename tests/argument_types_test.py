"""Values are checked against the types and ranges of arguments."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from vit_scaling.argument_types import (
    Check,
    Decay,
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    check_arguments,
)


class Model:
    def __call__(self, *inputs):
        return inputs


def _whole(value):
    if int(value) != value:
        raise ValueError("not whole")


@check_arguments
def build(
    count: PositiveInt = 1,
    rate: PositiveFloat | None = None,
    flip: bool = False,
    policy: Literal["stop", "skip"] = "stop",
    area: tuple[Fraction, Fraction] = (0.5, 1.0),
    make: Callable[[int], Model] | None = None,
    steps: Sequence[int] = (),
    rules: Iterable[tuple[str, float]] | None = None,
    sizes: Mapping[str, PositiveInt] | None = None,
    decay: Decay = 0.5,
    strength: NonNegativeFloat = 0.0,
    length: Annotated[Any, Check(_whole, "a whole number")] = 1,
    anything: Any = None,
    untyped=None,
):
    return count


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", 1),
        ("rate", None),
        ("rate", 2),  # An integer is a number.
        ("rate", np.float64(0.1)),
        ("area", [0.1, 1]),  # Gin writes lists.
        ("make", lambda size: Model()),
        ("steps", (1, 2)),
        ("steps", [1, 2]),
        ("rules", [("head/.*", 3.0)]),
        ("sizes", {"S/16": 224}),
        ("length", 3.0),
        ("anything", "x"),
        ("untyped", "x"),
    ],
)
def test_right_values_are_passed_unchanged(name, value):
    assert build(**{name: value}) == 1


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("count", 0, "an integer of at least 1"),
        ("count", 2.5, "an integer of at least 1"),
        ("count", "2", "an integer of at least 1"),
        ("count", True, "an integer of at least 1"),
        ("rate", 0, "a number above 0, or None"),
        ("rate", "1.0", "a number above 0, or None"),
        ("rate", float("nan"), "a number above 0, or None"),
        ("rate", float("inf"), "a number above 0, or None"),
        ("flip", "False", "True or False"),
        ("flip", 0, "True or False"),
        ("policy", "skpi", "one of 'stop', 'skip'"),
        ("area", (0.5,), "(a number above 0 and at most 1, a number above"),
        ("area", (0.0, 1.0), "(a number above 0 and at most 1"),
        ("make", Model, "a function, or None"),
        ("make", Model(), "a function, or None"),
        ("make", "build", "a function, or None"),
        ("steps", 3, "a list of values, each an integer"),
        ("steps", [1.5], "a list of values, each an integer"),
        ("rules", [3.0], "a list of values, each (a string, a number), or None"),
        ("rules", ["head", 3.0], "a list of values, each (a string, a number)"),
        ("sizes", {"S/16": 0}, "a dict, or None"),
        ("decay", 1, "a number above 0 and below 1"),
        ("strength", -1e-9, "a number of at least 0"),
        ("length", 1.5, "a whole number"),
    ],
)
def test_wrong_values_raise_with_the_argument_the_rule_and_the_value(name, value, rule):
    with pytest.raises(ValueError, match="must be") as error:
        build(**{name: value})
    assert f"`{name}` must be {rule}" in str(error.value)
    assert f"received {value!r}" in str(error.value)


def test_the_reason_or_the_nearest_name_is_added_where_there_is_one():
    with pytest.raises(ValueError, match=r"received 'skpi'\. Did you mean 'skip'\?"):
        build(policy="skpi")
    with pytest.raises(ValueError, match="it cannot take 1 argument"):
        build(make=lambda: Model())
    with pytest.raises(ValueError, match="it is a Model, not a function that makes"):
        build(make=Model())


def test_long_values_are_shortened():
    with pytest.raises(ValueError, match="…") as error:
        build(steps=["x"] * 1000)
    assert len(str(error.value)) < 400


def test_wrong_names_and_counts_are_python_errors():
    with pytest.raises(TypeError, match="cuont"):
        build(cuont=1)
