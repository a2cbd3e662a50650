"""The benchmark of what grows with a set: its figures are those of the set."""
# SPDX-License-Identifier: Apache-2.0

import argparse

import pytest

from tests.data import sets
from vit_scaling.commands.benchmarks import scale
from vit_scaling.commands.benchmarks.process_memory import call_in_fresh_process


def test_every_measurement_gives_a_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "_SHARD_RECORDS", 400)
    source = sets.numbered(tmp_path, [5, 5])
    args = argparse.Namespace(
        records=[1000],
        evaluation_images=[5],
        images=[50],
        pattern=source.pattern,
        workers=1,
    )
    result = scale.run(args)
    (row,) = result["sets"]
    assert row["records"] == 1000
    assert 60 < row["subset_images"] < 140  # 100, within 4 standard deviations.
    assert row["service_graph_bytes"] > 1000
    assert all(row[name] > 0 for name in row if name.endswith("peak_mib"))
    assert result["search"][0]["cpu_ms_per_training_image"] > 0
    assert result["listing"][0]["cpu_us_per_image"] > 0
    assert result["indexing"]["rate_over_reading"] > 0
    *_, indexing = scale.tables(result)
    assert [row[0] for row in indexing.rows][::2] == ["plain reading", "indexing"]
    assert indexing.rows[0][-1] == "1.00 (1.00 to 1.00)"


@pytest.mark.slow
def test_a_writers_launcher_does_not_grow_with_the_images():
    few, many = (
        call_in_fresh_process(scale._measure_listing, images)
        for images in (200_000, 800_000)
    )
    assert many["launcher_growth_mib"] < 1.3 * few["launcher_growth_mib"]
