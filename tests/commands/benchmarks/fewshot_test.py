"""The few-shot benchmark runs both sides on one set, and they agree."""
# SPDX-License-Identifier: Apache-2.0

import functools
import json

import numpy as np
import pytest

from vit_scaling.commands import benchmark
from vit_scaling.commands.benchmarks import fewshot


def test_both_sides_predict_alike(capsys):
    flags = ["--classes=12", "--shots=3", "--width=20", "--test_images=60", "--json"]
    assert benchmark.main(["fewshot", *flags]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["sklearn_ridge"]["same_predictions"] == 1.0
    assert result["accuracy"]["mean"] > 2 / 12
    assert result["seconds_over_sklearn"] > 0
    assert len(result["accuracy"]["per_seed"]) == 3


def test_sides_take_turns_and_memory_is_measured_apart_from_the_clock(monkeypatch):
    monkeypatch.setattr(fewshot.tracemalloc, "start", lambda: pytest.fail("traced"))
    done = []
    sides = {name: functools.partial(done.append, name) for name in "ab"}
    seconds = fewshot._measure_seconds(sides)
    assert done == list("ababab") and seconds.keys() == {"a", "b"}
    monkeypatch.undo()
    held = fewshot._measure_memory(lambda: np.zeros(2**20, np.uint8))
    assert 2**20 <= held < 2**21
