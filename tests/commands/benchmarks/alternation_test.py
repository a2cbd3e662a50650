"""Programs alternate; ratios are of one round, and of the shortest times."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.commands.benchmarks.alternation import (
    ratio_spread,
    spread,
    spread_text,
    time_alternating,
)


def test_programs_alternate_and_only_measured_rounds_count():
    calls = []
    programs = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = time_alternating(programs, rounds=3, warmup_rounds=1)
    assert calls == ["a", "b"] * 4
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert all(value >= 0 for values in seconds.values() for value in values)


def test_ratios_are_of_the_same_round():
    assert spread([3.0, 1.0, 2.0]) == {"min": 1.0, "median": 2.0, "max": 3.0}
    found = ratio_spread([1.0, 4.0, 9.0], [2.0, 4.0, 3.0])
    assert (found["min"], found["median"], found["max"]) == (0.5, 1.0, 3.0)
    assert found["of_minima"] == pytest.approx(1.0 / 2.0)
    assert spread_text(found) == "1.00 (0.50 to 3.00)"
