"""The few-shot benchmark runs both sides on one set, and they agree."""
# SPDX-License-Identifier: Apache-2.0

import json

from vit_scaling.commands import benchmark


def test_both_sides_predict_alike(capsys):
    flags = ["--classes=12", "--shots=3", "--width=20", "--test_images=60", "--json"]
    assert benchmark.main(["fewshot", *flags]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["sklearn_ridge"]["same_predictions"] == 1.0
    assert result["accuracy"]["mean"] > 2 / 12
    assert result["seconds_over_sklearn"] > 0
    assert len(result["accuracy"]["per_seed"]) == 3
