"""The pipeline benchmark measures a set, and decoding alone."""
# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from tests.data import sets
from vit_scaling.commands import benchmark


@pytest.fixture
def photographs(tmp_path):
    records = [
        sets.example(sets.jpeg(sets.tile(n, 40)), [0], f"{n}") for n in range(24)
    ]
    return sets.shards(tmp_path, [records[:12], records[12:]])


def test_shares_follow_from_rates_at_every_multiple_of_the_data(photographs, capsys):
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
        rate, limit = row["images_per_second"], row["limit_images_per_second"]
        assert row["share_of_limit"] == pytest.approx(rate / limit)
        assert row["resident_mib"] > 10
        ratio = row["limit_cpu_ms_per_image"] / row["cpu_ms_per_image"]
        assert row["share_of_limit_by_cpu_time"] == pytest.approx(ratio)
    assert set(result["resume_seconds_at_step"]) == {"10", "1000000"}
    expected = sum(len(sets.jpeg(sets.tile(n, 40))) for n in range(24)) / 24
    assert result["mean_image_bytes"] == pytest.approx(expected)
    assert set(result["stages"]) == {
        "read_and_shuffle_images_per_second",
        "read_and_shuffle_cpu_ms_per_image",
    }


def test_a_missing_set_is_reported(tmp_path, capsys):
    assert benchmark.main(["pipeline", f"--pattern={tmp_path}/none-*"]) == 1
    assert "fits no file" in capsys.readouterr().err
