"""Programs alternate, and rounds for warming up are not measured."""
# SPDX-License-Identifier: Apache-2.0

from vit_scaling.commands.benchmarks.alternation import time_alternating


def test_programs_alternate_and_only_measured_rounds_count():
    calls = []
    programs = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = time_alternating(programs, rounds=3, warmup_rounds=1)
    assert calls == ["a", "b"] * 4
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert all(value >= 0 for values in seconds.values() for value in values)
