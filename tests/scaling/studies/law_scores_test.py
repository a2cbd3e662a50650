"""Scores rank laws, with a verdict in words."""
# SPDX-License-Identifier: Apache-2.0

import html
import json

import matplotlib.pyplot as plt

from tests.scaling.example_runs import runs_on_law
from vit_scaling import scaling


def test_scores_are_a_table_with_uncertainty_and_a_verdict(tmp_path):
    names = ["power law (M1)", "with floor (M2)"]
    runs = runs_on_law(count=60, noise=0.005)
    found = scaling.score(runs, held_out=0.3, laws=names, resamples=10)
    assert found.table["law"][0] == "with floor (M2)"
    row = found.table.iloc[1]
    assert row["low"] < row["extrapolation"] < row["high"]
    assert row["ratio_low"] > 1 and found.rows[1].is_worse
    assert "tell it apart from all others" in found.answer
    assert [t.get_text() for t in found.plot().get_yticklabels()] == names
    plt.close("all")
    page = found.report(tmp_path / "r.html").read_text()
    assert found.answer in html.unescape(page)
    assert json.loads(found.to_json())["laws"][1]["is_worse"]
