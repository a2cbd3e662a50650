"""The report stands alone, and says what the result says."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

from tests.scaling.example_runs import grid_of_runs, runs_on_law
from vit_scaling.scaling.laws.bootstrap import bootstrap
from vit_scaling.scaling.laws.power_law import fit_power_law
from vit_scaling.scaling.laws.runs import Runs
from vit_scaling.scaling.studies import analysis, report


def page(runs, path, **options):
    result = analysis.analyse(runs, resamples=50, **options)
    law = boot = None
    if result["converged"]:
        fit = fit_power_law(runs)
        law, boot = fit.law, bootstrap(runs, fit, resamples=50)
    report.write_report(runs, law, boot, result, path)
    return path.read_text(), result


def test_it_needs_no_network_and_at_most_six_megabytes(tmp_path):
    text, result = page(runs_on_law(noise=0.01), tmp_path / "report.html")
    assert len(text.encode()) <= 6e6
    assert "<script src=" not in text
    assert '<link rel="stylesheet"' not in text
    assert f"{result['b']:.4g}" in text
    assert "Had the largest runs been unknown" in text


def test_names_are_escaped_and_bottlenecks_listed(tmp_path):
    rows = [
        dataclasses.replace(run, model=run.model + "<b>", shape=None)
        for run in (*grid_of_runs(), *runs_on_law(noise=0.01))
    ]
    text, _ = page(Runs(tuple(rows)), tmp_path / "report.html")
    assert "L/16&lt;b&gt;" in text
    assert "longer training makes it worse" in text


def test_a_failed_fit_is_reported_without_coefficients(tmp_path):
    runs = runs_on_law()
    result = analysis.analyse(runs, resamples=50)
    result |= {"converged": False, "reason": "no <minimum>", "a": None}
    result |= {"predictions": [], "hindcasts": [], "intervals": None}
    report.write_report(runs, None, None, result, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "The fit did not converge: no &lt;minimum&gt;" in text
    assert "value</th>" not in text
