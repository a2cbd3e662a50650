"""The shipped data are the paper's, each row with its source."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.scaling.laws import paper_results
from vit_scaling.scaling.laws.power_law import fit_power_law


@pytest.mark.parametrize("metric", paper_results.METRICS)
def test_every_metric_has_its_runs_and_every_run_its_source(metric):
    runs = paper_results.paper_runs(metric)
    assert len(runs) >= 258
    assert runs.compute_unit == "core_days"
    assert all("Table" in r.source or "Figure 2" in r.source for r in runs)
    assert all(run.shape is not None for run in runs)


def test_figure_and_table_agree_on_ten_shots():
    """Table 4: G/14 at 5 M steps has 84.9 % on ImageNet with 10 shots."""
    runs = paper_results.paper_runs("imagenet_10shot")
    best = min(runs, key=lambda run: run.error)
    assert (best.model, best.images_seen) == ("G/14", 5e6 * 4096)
    assert best.error == pytest.approx(1 - 0.849, abs=5.1e-4)
    assert best.compute == pytest.approx(27_497.8, abs=0.1)


def test_only_the_figure_has_fine_tuned_g_14():
    runs = paper_results.paper_runs("imagenet_finetune").where(
        lambda r: r.model == "g/14"
    )
    assert [round(100 * run.error, 2) for run in runs] == [
        *(13.36, 11.47, 10.52, 10.31, 10.14)
    ]


def test_tables_take_their_core_days_from_the_rates():
    runs = paper_results.paper_runs("pets_10shot")
    run = next(r for r in runs if r.model == "L/16" and r.images_seen == 4e6 * 4096)
    assert run.compute == pytest.approx(4000 * 0.636148)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'pets_10shot'"):
        paper_results.paper_runs("pets_10sht")
    with pytest.raises(ValueError, match="Did you mean 'B/16'"):
        paper_results.core_days_per_step("B/15")


def test_figure_8_has_all_cells_of_three_depths():
    rows = paper_results.shapefinder_rows()
    assert len(rows) == 3 * 23 * 13
    assert {row["layers"] for row in rows} == {"24", "40", "56"}


FEWSHOT = [name for name in paper_results.METRICS if name.endswith("shot")]


def test_g_14_is_predicted_without_it_within_four_percent_in_the_median():
    """The few-shot metrics of Tables 4 to 13, and ImageNet 10-shot."""
    off = []
    for metric in FEWSHOT:
        runs = paper_results.paper_runs(metric)
        best = min((run for run in runs if run.model == "G/14"), key=lambda r: r.error)
        law = fit_power_law(runs.where(lambda run: run.model != "G/14")).law
        off.append(abs(float(law.error_at(best.compute)) / best.error - 1))
    assert len(off) == 8 and np.median(off) < 0.04 and max(off) < 0.12


def test_steps_turned_into_core_days_give_the_law_of_figure_2():
    """The only metric of both: ImageNet 10-shot."""
    rates = [
        (
            run.compute,
            run.images_seen / 4096 * paper_results.core_days_per_step(run.model),
        )
        for run in paper_results.paper_runs("imagenet_10shot")
    ]
    figure, table = np.array(rates).T
    assert np.median(np.abs(table / figure - 1)) < 0.02
