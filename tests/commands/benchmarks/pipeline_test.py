"""The pipeline benchmark measures a set, and decoding alone."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import json

import pytest

from tests.data import sets
from vit_scaling.commands import benchmark
from vit_scaling.commands.benchmarks import pipeline


@pytest.fixture
def photographs(tmp_path):
    records = [
        sets.example(sets.jpeg(sets.tile(n, 40)), [0], f"{n}") for n in range(24)
    ]
    return sets.shards(tmp_path, [records[:12], records[12:]])


def test_every_multiple_of_the_data_is_measured(photographs, capsys):
    flags = [
        f"--pattern={photographs.pattern}",
        "--image_size=16",
        "--batch_size=8",
        "--seconds=0.2",
        "--shuffle_window=16",
        "--json",
    ]
    assert benchmark.main(["pipeline", *flags, "--times", "1", "3"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["images"] for row in result["pipeline"]] == [24, 72]
    for row in result["pipeline"]:
        for name in ("limit", "plain_loop", "pipeline"):
            assert row[f"{name}_images_per_second"] > 0
            assert row[f"{name}_cpu_ms_per_image"] > 0
        for name in ("limit", "plain_loop"):
            assert row[f"rate_over_{name}"] > 0 and row[f"cpu_time_over_{name}"] > 0
        assert row["resident_mib"] > 10
    assert set(result["resume_seconds_at_step"]) == {"10", "1000000"}
    rates, stages = pipeline.tables(result)
    assert [row[0] for row in rates.rows] == ["24"] * 3 + ["72"] * 3
    assert [row[0] for row in stages.rows][1:] == [
        "first batch from step 10, s",
        "first batch from step 1,000,000, s",
    ]
    expected = sum(len(sets.jpeg(sets.tile(n, 40))) for n in range(24)) / 24
    assert result["mean_image_bytes"] == pytest.approx(expected)
    assert set(result["stages"]) == {
        "read_and_shuffle_images_per_second",
        "read_and_shuffle_cpu_ms_per_image",
    }


def test_memory_is_measured_in_fresh_processes(photographs, capsys):
    flags = ["--image_size=16", "--batch_size=8", "--shuffle_window=16"]
    flags += [f"--pattern={photographs.pattern}", "--memory_rounds=2", "--json"]
    assert benchmark.main(["pipeline", *flags, "--times", "1", "3"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = result["memory"]
    assert [(row["times"], row["images"]) for row in rows] == [(1, 24), (3, 72)] * 2
    assert all(row["peak_mib"] > row["before_mib"] > 10 for row in rows)
    (table,) = pipeline.tables(result)
    assert [row[0] for row in table.rows] == ["24", "72"] * 2


def test_ratios_are_medians_of_the_rounds(monkeypatch):
    """Rates and times per image by a clock of one's own."""
    rates = {"limit": [10, 20, 40, 40], "plain_loop": [5, 5, 5, 5]}
    rates["pipeline"] = [9, 10, 30, 32]
    left = {name: iter(values) for name, values in rates.items()}

    def measure(iterator, batch_size, seconds):
        assert (batch_size, seconds) == (8, 5.0)
        rate = next(left[iterator])
        return rate, 1 / rate

    monkeypatch.setattr(pipeline, "measure", measure)
    arguments = argparse.Namespace(batch_size=8, seconds=20)
    result = pipeline._measure_alternately({n: n for n in rates}, arguments)
    assert result["pipeline_images_per_second"] == 20
    assert result["rate_over_limit"] == pytest.approx((0.75 + 0.8) / 2)
    assert result["cpu_time_over_limit"] == pytest.approx((40 / 30 + 40 / 32) / 2)
    assert result["rate_over_plain_loop"] == pytest.approx((2 + 6) / 2)
    assert result["rate_over"]["limit"]["max"] == pytest.approx(0.9)
    assert result["images_per_second"]["plain_loop"]["min"] == 5


def test_a_missing_set_is_reported(tmp_path, capsys):
    assert benchmark.main(["pipeline", f"--pattern={tmp_path}/none-*"]) == 1
    assert "fits no file" in capsys.readouterr().err
