"""Reads of a slow store overlap within their budget; shards are looked up together."""
# SPDX-License-Identifier: Apache-2.0

import argparse

import numpy as np
import pytest

from tests.data import sets
from vit_scaling.commands.benchmarks import delayed_files, read_latency
from vit_scaling.data import pipeline
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.image_preprocessing import Resize

pytestmark = pytest.mark.slow


@pytest.fixture
def source(tmp_path):
    """A set of 600 records of 40 kB: a photograph and other bytes."""
    image = sets.jpeg(sets.tile(0, 40))
    records = [
        sets.example(image, [n], f"{n}", other=bytes([n % 256]) * 40_000)
        for n in range(600)
    ]
    sets.shards(tmp_path, [records[:250], records[250:]])
    delayed_files.set_delay(0)  # Registers the file system.
    return TFRecords(delayed_files.delayed_path(str(tmp_path / "train-*")))


def labels(source, steps, start_step=0, **options):
    data = pipeline.TrainData(
        source, image_size=8, classes=600, preprocess=Resize(), **options
    )
    batches = data.dataset(batch_size=32, seed=1, start_step=start_step)
    return [
        np.argmax(batch["labels"], axis=-1).tolist()
        for batch in batches.take(steps).as_numpy_iterator()
    ]


@pytest.mark.parametrize("budget", [2 * 2**20, 2**30])
def test_the_bytes_in_flight_stay_in_the_budget_and_the_order_is_kept(source, budget):
    expected = labels(source, 30)
    first_epoch = np.concatenate(expected)[:600]
    assert sorted(first_epoch.tolist()) == list(range(600))
    delayed_files.set_delay(30)
    try:
        delayed_files.take_max_bytes_in_flight()
        options = {"read_ahead_bytes": budget, "shuffle_window": 128}
        actual = labels(source, 30, **options)
        most = delayed_files.take_max_bytes_in_flight()
        assert labels(source, 12, start_step=18, **options) == actual[18:]
    finally:
        delayed_files.set_delay(0)
    assert actual == labels(source, 30, shuffle_window=128)
    assert most <= budget
    if budget == 2 * 2**20:
        assert most > 2**20  # Reads overlap as far as the budget allows.


def test_the_pipeline_and_opening_are_measured_at_each_delay(source):
    pattern = "/" + source.pattern.removeprefix("s3://")
    arguments = argparse.Namespace(
        pattern=pattern,
        image_size=8,
        batch_size=32,
        seconds=0.2,
        read_latency_ms=[5.0],
        read_ahead_mib=8,
    )
    rows = read_latency.measure(arguments)
    assert [row["read_latency_ms"] for row in rows] == [0, 5]
    for row in rows:
        for name in ("pipeline", "reading"):
            key = f"{name}_images_per_second"
            assert row[f"{name}_over_no_latency"] == row[key] / rows[0][key]
    (opening,) = read_latency.measure_opening(300, [5.0])
    # One look-up for each shard, few for the manifest; a host of 64 has 4 or 5 shards.
    assert 300 <= opening["requests"] < 330
    assert opening["max_requests_in_flight"] > 1  # The look-ups wait together.
