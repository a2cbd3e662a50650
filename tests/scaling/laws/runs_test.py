"""The table of runs rejects what a law cannot be fitted to."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.scaling.example_runs import grid_of_runs, runs_on_law
from vit_scaling.scaling.laws.run_tables import runs_from
from vit_scaling.scaling.laws.runs import Run, Runs, find_shape, write_csv


@pytest.mark.parametrize("compute", [0.0, -1.0, float("nan"), float("inf")])
def test_compute_of_zero_is_rejected(compute):
    with pytest.raises(ValueError, match="`compute` must be a finite number above 0"):
        Run("B/16", compute, 0.5)


def test_errors_in_percent_are_recognised():
    with pytest.raises(ValueError, match="--error_unit=percent"):
        Run("B/16", 1.0, 31.5)


@pytest.mark.parametrize("error", [-0.1, 1.01, float("nan")])
def test_errors_outside_zero_and_one_are_rejected(error):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Run("B/16", 1.0, error)


def test_an_unknown_unit_suggests_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'core_days'"):
        Run("B/16", 1.0, 0.5, compute_unit="core_day")


def test_a_negative_weight_is_rejected():
    with pytest.raises(ValueError, match="`weight` must be 0 or more"):
        Run("B/16", 1.0, 0.5, weight=-1)


def test_mixed_units_are_rejected():
    rows = (Run("a", 1.0, 0.5), Run("b", 1e18, 0.4, compute_unit="flops"))
    with pytest.raises(ValueError, match="one unit; received core_days and flops"):
        Runs(rows)


def test_duplicate_runs_are_rejected_and_seeds_tell_them_apart():
    one, two = Run("a", 1.0, 0.5, seed="0"), Run("a", 1.0, 0.4, seed="1")
    with pytest.raises(ValueError, match="2 rows are duplicate runs"):
        Runs((one, one))
    averaged = Runs((one, two)).averaged_over_seeds()
    assert [run.error for run in averaged] == [pytest.approx(0.45)]


def test_no_runs_are_rejected():
    with pytest.raises(ValueError, match="at least one run"):
        Runs(())


def test_several_metrics_ask_for_a_choice():
    runs = Runs((Run("a", 1.0, 0.5, metric="x"), Run("a", 1.0, 0.5, metric="yy")))
    with pytest.raises(ValueError, match="several metrics: x, yy"):
        runs.of_metric(None)
    with pytest.raises(ValueError, match="Did you mean 'yy'"):
        runs.of_metric("y")
    assert len(runs.of_metric("x")) == 1


def test_models_come_cheapest_first_and_data_sizes_smallest_first():
    assert grid_of_runs().models == ["Ti/16", "B/32", "L/16"]
    assert grid_of_runs().data_sizes == [1e6, 1e8]


def test_a_name_of_ones_own_has_no_shape():
    assert find_shape("my model") is None
    assert find_shape("g/14").width == 1408
    with pytest.raises(ValueError, match="Write g/14 or g/16, or g/ and another"):
        find_shape("g")


def test_a_written_table_reads_back(tmp_path):
    write_csv(grid_of_runs(), tmp_path / "runs.csv")
    back = runs_from(tmp_path / "runs.csv")
    assert [(r.key, r.compute, r.error) for r in back] == [
        (r.key, r.compute, r.error) for r in grid_of_runs()
    ]
    assert len(runs_on_law()) == len(runs_on_law().compute) == 40


def test_runs_are_described_in_a_line_and_as_a_table():
    runs = grid_of_runs()
    assert repr(runs) == "Runs(18 runs of 3 models, error, compute in TPUv3 core-days)"
    table = runs.to_frame()
    assert list(table["error"]) == list(runs.error)
    assert {"model", "compute", "parameters", "training_run"} <= set(table.columns)
