"""This package's side trains through its own loop, and continues where it stopped."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import pytest

from tests.commands.benchmarks.parity_data_test import make_settings
from vit_scaling.commands.benchmarks import parity_run
from vit_scaling.training.logs import read_metrics


@pytest.mark.slow
def test_a_run_is_evaluated_after_each_epoch(tmp_path):
    settings = make_settings(tmp_path)
    settings = dataclasses.replace(settings, folder=str(tmp_path / "run"))
    top1 = parity_run.train(settings)
    assert len(top1) == 2 and all(0 <= value <= 1 for value in top1)
    rows = read_metrics(settings.folder, "test")
    assert [row["step"] for row in rows] == [5, 10]
    assert all(row["examples"] == 20 for row in rows)
    assert parity_run.train(settings) == top1  # It has ended.
