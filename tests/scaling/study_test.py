"""A study in one call: numbers, files, and nothing invented."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json

import numpy as np
import pytest

from tests.scaling.studies import LAW, grid, on_law
from vit_scaling.scaling import study
from vit_scaling.scaling.run_files import read_csv
from vit_scaling.scaling.runs import Run, Runs, write_csv

KEYS = {"a", "b", "c", "d", "converged", "intervals", "rms_log_error"}


def test_a_study_of_a_planted_law():
    result = study.analyse(on_law(noise=0.01), resamples=50, budgets=[1e5])
    assert result.keys() >= KEYS
    assert result["converged"]
    assert result["b"] == pytest.approx(LAW.b, abs=0.05)
    assert result["predictions"][-1]["compute"] > 1e5
    assert set(result["intervals"]) == {"a", "b", "c", "d"}
    json.dumps(result, default=float)


def test_what_did_not_converge_has_no_coefficients():
    compute, error = np.linspace(1, 2, 20), np.linspace(0.9, 0.5, 20)
    pairs = zip(compute, error, strict=True)
    runs = Runs(tuple(Run(f"m{k}", *map(float, p)) for k, p in enumerate(pairs)))
    result = study.analyse(runs)
    assert not result["converged"]
    assert result["reason"]
    for key in ("a", "b", "c", "d", "intervals", "rms_log_error"):
        assert result[key] is None
    assert result["predictions"] == result["hindcasts"] == []


def test_everything_is_written(tmp_path):
    result = study.analyse(
        study.load("paper"), resamples=50, output_dir=tmp_path / "out"
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *("law.json", "frontier.csv", "frontier.png", "frontier.svg", "report.html")
    }
    assert len(result["files"]) == 5
    assert len(read_csv(tmp_path / "out" / "frontier.csv")) == result["frontier_runs"]


def test_runs_are_loaded_from_files_and_from_the_paper(tmp_path):
    write_csv(on_law(), tmp_path / "runs.csv")
    assert len(study.load(str(tmp_path / "runs.csv"))) == 40
    assert len(study.load(str(tmp_path))) == 40  # A sweep's folder.
    assert study.load("paper", metric="birds_5shot").metrics == ["birds_5shot"]
    assert study.budgets("1e4, 3M") == [1e4, 3e6]


def test_sample_efficiency_is_read_on_all_the_data_where_that_has_no_number():
    runs = grid()
    whole = Runs(
        tuple(
            dataclasses.replace(run, data_size=None) if run.data_size == 1e8 else run
            for run in runs
        )
    )
    with_numbers, without = (
        study.analyse(table, resamples=20)["reading"]["sample_efficiency"]
        for table in (runs, whole)
    )
    assert with_numbers and without == with_numbers
