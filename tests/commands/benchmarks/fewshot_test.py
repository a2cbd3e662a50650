"""The few-shot benchmark runs both sides on one set, and they agree."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import json

import numpy as np

from vit_scaling.commands import benchmark
from vit_scaling.commands.benchmarks import fewshot


def test_both_sides_predict_alike(capsys):
    flags = ["--classes=12", "--shots=3", "--width=20", "--test_images=60", "--json"]
    assert benchmark.main(["fewshot", *flags, "--strengths=4", "--rounds=2"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["same_predictions"] == 1.0
    assert result["accuracy"]["mean"] > 2 / 12
    assert set(result["seconds"]) == {"ours", "sweep", "sklearn_ridge"}
    for ratio in (result["seconds_over_sklearn"], result["sweep_over_one"]):
        assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    assert len(result["accuracy"]["per_seed"]) == 3
    (table,) = fewshot.tables(result)
    assert [row[-1] for row in table.rows][1:] == ["", "1.00"]


def test_sweep_predicts_for_every_strength_as_sklearn_does():
    arguments = argparse.Namespace(classes=6, shots=4, width=9, test_images=50)
    data = fewshot._make_features(arguments)
    chosen = fewshot._choose_images(data, arguments, seed=0)
    strengths = [1.0, 64.0, 1024.0]
    ours = fewshot._predict(data, chosen, strengths)
    peers = fewshot._ridge(data, chosen, strengths)
    assert len(ours) == 3
    np.testing.assert_array_equal(ours, peers)


def test_memory_is_measured_apart_from_the_clock():
    held = fewshot._measure_memory(lambda: np.zeros(2**20, np.uint8))
    assert 2**20 <= held < 2**21
