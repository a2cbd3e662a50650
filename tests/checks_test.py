"""Numeric arguments out of range raise an error that names argument, rule and value."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling import checks


@pytest.mark.parametrize(
    ("check", "good", "bad", "rule"),
    [
        (lambda x: checks.check_at_least(2, x=x), (2, 2.5), (1, True, "3"), "least 2"),
        (lambda x: checks.check_above(0, x=x), (1e-9, 3), (0, -1, None), "above 0"),
        (lambda x: checks.check_fraction(x=x), (0.1, 1), (0, 1.1, "1"), "at most 1"),
        (
            lambda x: checks.check_power_of_two(x=x),
            (1, 8),
            (0, 12, 2.0),
            "power of two",
        ),
        (
            lambda x: checks.check_positive_integer(x=x),
            (1, 7),
            (0, 1.0, True, "1"),
            "a positive integer",
        ),
    ],
)
def test_only_values_in_range_pass(check, good, bad, rule):
    for value in good:
        check(value)
    for value in bad:
        with pytest.raises(ValueError, match=f"`x` must be .*{rule}.*received"):
            check(value)
    with pytest.raises(ValueError, match="received nan"):
        check(float("nan"))


@pytest.mark.parametrize(
    "value_range", [(0, 0), (1, -1), ((0, 0, 0), (1, 0, 1)), (float("nan"), 1)]
)
def test_a_range_of_pixels_is_increasing(value_range):
    checks.check_value_range((-1.0, 1.0))
    checks.check_value_range(((-2, -2, -1.8), (2, 2.4, 2.6)))
    with pytest.raises(ValueError, match="with lowest < highest"):
        checks.check_value_range(value_range)
