"""The inference benchmark compares like with like, and says what it found."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import json

import numpy as np
import pytest

from vit_scaling.commands import benchmark
from vit_scaling.commands.benchmarks import inference


def test_percentiles_and_rate_are_of_the_requests():
    seconds = [0.1, 0.2, 0.3, 0.4, 0.5]
    found = inference.statistics_of(6, seconds)
    assert found["p50_seconds"] == pytest.approx(0.3)
    assert found["images_per_second"] == pytest.approx(20.0)
    assert found["p90_seconds"] == pytest.approx(np.percentile(seconds, 90))
    assert found["p99_seconds"] == pytest.approx(np.percentile(seconds, 99))


def test_ratio_is_to_the_best_peer_and_litert_is_none():
    medians = {"saved_model": 0.3, "onnxruntime": 0.2, "torch_compile": 0.4,
               "litert": 0.1}  # fmt: skip
    engines = {name: {"p50_seconds": value} for name, value in medians.items()}
    seconds = {name: [0.9 * x, x, 1.3 * x] for name, x in medians.items()}
    seconds["saved_model"].reverse()
    inference.add_ratios(engines, seconds)
    assert engines["saved_model"]["time_over_best_peer"] == pytest.approx(1.5)
    ratio = engines["saved_model"]["ratio"]
    assert ratio["max"] == pytest.approx(1.5 * 1.3 / 0.9)  # Of the first round.
    assert ratio["of_minima"] == pytest.approx(1.5)
    assert engines["onnxruntime"]["time_over_best_peer"] == 1.0
    alone = {"saved_model": {"p50_seconds": 0.3}}
    inference.add_ratios(alone, {"saved_model": [0.3]})
    assert "time_over_best_peer" not in alone["saved_model"]


@pytest.mark.parametrize("flags", [["--repeats=0"], ["--batch_sizes", "0"]])
def test_numbers_without_sense_are_refused(flags, capsys):
    assert benchmark.main(["inference", *flags]) == 1
    assert "must be at least 1" in capsys.readouterr().err


def test_engine_that_answers_otherwise_is_no_peer(tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text("print('{\"differs_by\": 0.1}')")
    monkeypatch.setattr(inference, "WORKER", script)
    (tmp_path / inference.IMAGES).touch()
    arguments = argparse.Namespace(threads=None, clock="wall")
    worker = inference._worker("onnxruntime", tmp_path / "f", arguments)
    with pytest.raises(RuntimeError, match="differs from the model by"), worker:
        pass


@pytest.mark.slow  # Exports thrice and starts a dozen processes.
def test_every_engine_at_hand_is_measured(capsys):
    flags = ["--shapes", "mu/16", "--image_size=32", "--batch_sizes", "1", "3"]
    flags += ["--repeats=2", "--starts=1", "--imports=1", "--torch_python="]
    capsys.readouterr()
    assert benchmark.main(["inference", *flags, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    measured = result["shapes"]["mu/16"]
    assert set(measured["batches"]) == {"1", "3"}
    engines = {"saved_model", "saved_model_xla", "litert"}
    engines |= {"onnxruntime", "onnxruntime_int8"}
    for batch in measured["batches"].values():
        assert set(batch) == engines
        assert batch["onnxruntime"]["time_over_best_peer"] == 1.0
    assert set(measured["first_answer_seconds"]) == engines
    differences = measured["logits_differ_by"]
    assert 1e-4 < differences.pop("onnxruntime_int8") < 0.3
    assert max(differences.values()) < 1e-4
    assert result["imports"]["ratio"] > 0
    latencies, starts, imports = inference.tables(result)
    assert (len(latencies.rows), len(starts.rows)) == (10, 5)
    assert imports.rows[0][-1] == "1.00"
