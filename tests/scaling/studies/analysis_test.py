"""A study in one call: numbers, files, and nothing invented."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json

import numpy as np
import pytest

from tests.scaling.example_runs import LAW, grid_of_runs, runs_on_law
from vit_scaling.scaling.laws.alternative_laws import FORMS
from vit_scaling.scaling.laws.batched_fit import Loss
from vit_scaling.scaling.laws.law_estimates import LawOptions
from vit_scaling.scaling.laws.power_law import PowerLaw
from vit_scaling.scaling.laws.run_tables import runs_from
from vit_scaling.scaling.laws.runs import Run, Runs, write_csv
from vit_scaling.scaling.studies import analysis

KEYS = {"a", "b", "c", "d", "converged", "intervals", "rms_log_error"}
FEW = LawOptions(resamples=50)


def test_a_study_of_a_planted_law():
    result = analysis.analyse(runs_on_law(noise=0.01), FEW, budgets=[1e5])
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
    result = analysis.analyse(runs)
    assert not result["converged"]
    assert result["reason"]
    for key in ("a", "b", "c", "d", "intervals", "rms_log_error"):
        assert result[key] is None
    assert result["predictions"] == result["hindcasts"] == []


def test_everything_is_written(tmp_path):
    result = analysis.analyse(
        analysis.load_runs("paper"), FEW, output_dir=tmp_path / "out"
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *("law.json", "frontier.csv", "frontier.png", "frontier.svg", "report.html")
    }
    assert len(result["files"]) == 5
    assert len(runs_from(tmp_path / "out" / "frontier.csv")) == result["frontier_runs"]


def test_runs_are_loaded_from_files_and_from_the_paper(tmp_path):
    write_csv(runs_on_law(), tmp_path / "runs.csv")
    assert len(analysis.load_runs(str(tmp_path / "runs.csv"))) == 40
    assert len(analysis.load_runs(str(tmp_path))) == 40  # A sweep's folder.
    assert analysis.load_runs("paper", metric="birds_5shot").metrics == ["birds_5shot"]
    assert analysis.parse_budgets("1e4, 3M") == [1e4, 3e6]


def test_sample_efficiency_is_read_on_all_the_data_where_that_has_no_number():
    runs = grid_of_runs()
    whole = Runs(
        tuple(
            dataclasses.replace(run, data_size=None) if run.data_size == 1e8 else run
            for run in runs
        )
    )
    with_numbers, without = (
        analysis.analyse(table, FEW)["reading"]["sample_efficiency"]
        for table in (runs, whole)
    )
    assert with_numbers and without == with_numbers


def five_runs():
    """A clean frontier of the fewest runs that the law can be fitted to."""
    compute = np.geomspace(1, 1e4, 5)
    pairs = zip(compute, LAW.error_at(compute), strict=True)
    return Runs(tuple(Run(f"m{k}", *map(float, p)) for k, p in enumerate(pairs)))


def test_a_fit_is_kept_if_runs_are_too_few_to_resample_or_compare(tmp_path):
    result = analysis.analyse(
        five_runs(), FEW, compare=True, output_dir=tmp_path / "out"
    )
    assert result["converged"] and result["intervals"] is None
    assert result["b"] == pytest.approx(LAW.b, rel=1e-3)
    said = " ".join(result["notes"])
    assert "There are no intervals. Only" in said and "Laws were not compared" in said
    (ahead,) = result["predictions"]
    assert ahead["error"] == pytest.approx(float(LAW.error_at(1e5)), rel=1e-3)
    assert ahead["interval"] is None and ahead["run_interval"] is None
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"{result['b']:.4g}</td>" in page and "There are no intervals." in page
    assert "95% interval" not in page and "data:image/png;base64," in page


def runs_to_an_error_of_zero():
    compute = np.geomspace(1, 1e3, 16)
    error = 0.5 * compute**-0.5
    error[-1] = 0.0
    facts = {"data_size": 1e3}
    return Runs(
        tuple(
            Run(f"m{k % 3}", float(c), float(e), images_seen=float(c), **facts)
            for k, (c, e) in enumerate(zip(compute, error, strict=True))
        )
    )


def test_an_error_of_zero_is_studied_with_the_linear_loss(tmp_path):
    result = analysis.analyse(
        runs_to_an_error_of_zero(),
        LawOptions(loss=Loss("linear"), resamples=50),
        compare=True,
        output_dir=tmp_path / "out",
    )
    assert result["converged"] and len(result["laws"]) == len(FORMS)
    assert result["b"] == pytest.approx(0.5, abs=0.1)
    assert 0 < result["rms_log_error"] < 0.5
    rows = [row for row in result["hindcasts"] if row["actual"] == 0]
    assert rows and all(row["relative_error"] is None for row in rows)


def no_constant(name):
    raise AssertionError(f"JSON has no {name}.")


def test_law_json_is_json_where_the_law_never_saturates(tmp_path):
    law = PowerLaw(a=0.5, b=0.3, c=0.0, d=0.0)
    runs = runs_on_law(law)
    result = analysis.analyse(runs, FEW, output_dir=tmp_path / "out")
    assert result["c"] == pytest.approx(0, abs=1e-6)
    text = (tmp_path / "out" / "law.json").read_text()
    found = json.loads(text, parse_constant=no_constant)
    assert found["reading"]["saturation"]["straight_to"] is None
