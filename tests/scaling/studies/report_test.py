"""The report stands alone, and says what the result says."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json

import numpy as np
import pytest

from tests.scaling.example_runs import grid_of_runs, runs_on_law
from vit_scaling.scaling.laws.law_estimates import LawOptions
from vit_scaling.scaling.laws.paper_results import paper_runs
from vit_scaling.scaling.laws.runs import Runs
from vit_scaling.scaling.laws.simulated_studies import TRUTHS, simulate_runs
from vit_scaling.scaling.studies import analysis, report


@pytest.fixture
def figure(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"PNG")
    return path


def page(runs, figure):
    result = analysis.analyse(runs, LawOptions(resamples=50))
    path = figure.with_name("report.html")
    report.write_report(result, figure, path)
    return path.read_text(), result


def test_it_opens_with_the_answer_and_needs_no_network(figure):
    text, result = page(paper_runs(), figure)
    answer = report.describe_answer(result)
    assert text.index(answer) < text.index("<table>") and text.index(answer) < 2000
    ahead = result["predictions"][-1]
    low, high = (f"{end:.4g}" for end in ahead["interval"])
    assert f"{ahead['error']:.4g} (95% interval {low} to {high})" in answer
    assert "G/14" in answer and "TPUv3 core-days" in answer
    assert 'src="data:image/png;base64,UE5H"' in text
    assert "<script" not in text and '<link rel="stylesheet"' not in text
    assert f"{result['b']:.4g}" in text
    assert "Had the largest runs been unknown" in text


@pytest.mark.parametrize("name", ["paper", "many models"])
def test_it_is_below_one_megabyte(name, tmp_path):
    runs = paper_runs()
    if name == "many models":
        runs = simulate_runs(TRUTHS["law"], 150, 0.02, np.random.default_rng(0))
    analysis.analyse(runs, LawOptions(resamples=50), output_dir=tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 1e6


def test_names_are_escaped_and_bottlenecks_listed(figure):
    rows = [
        dataclasses.replace(run, model=run.model + "<b>", shape=None)
        for run in (*grid_of_runs(), *runs_on_law(noise=0.01))
    ]
    text, _ = page(Runs(tuple(rows)), figure)
    assert "L/16&lt;b&gt;" in text
    assert "longer training makes it worse on</th>" in text and ">1M images<" in text


def test_a_failed_fit_is_reported_without_coefficients(figure):
    result = analysis.analyse(runs_on_law(), LawOptions(resamples=50))
    result |= {"converged": False, "reason": "no <minimum>", "a": None}
    result |= {"predictions": [], "hindcasts": [], "intervals": None}
    report.write_report(result, figure, figure.with_name("report.html"))
    text = figure.with_name("report.html").read_text()
    assert "The fit did not converge: no &lt;minimum&gt;" in text
    assert "The runs show no law: no &lt;minimum&gt;" in text
    assert "value</th>" not in text


def test_gains_and_images_have_intervals_where_the_noise_is_known(figure):
    """Three seeds with 1 % noise."""
    generator = np.random.default_rng(0)
    rows = [
        dataclasses.replace(
            run, seed=str(seed), error=run.error * float(np.exp(0.01 * z))
        )
        for seed in range(3)
        for run, z in zip(grid_of_runs(), generator.standard_normal(18), strict=True)
        if run.error < 0.9
    ]
    text, result = page(Runs(tuple(rows)), figure)
    assert result["noise"] == pytest.approx(0.01, rel=0.4)
    row = result["reading"]["sample_efficiency"][0]
    assert set(row["intervals"]) == set(row["images"])
    for model, images in row["images"].items():
        low, high = row["intervals"][model]
        assert images is None or low <= images
        assert images is None or high is None or images <= high
    assert " to " in text and json.dumps(result, default=float)
