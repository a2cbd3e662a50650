"""Profiles and envelope give exponents, sizes, figures and reports."""
# SPDX-License-Identifier: Apache-2.0

import json

import matplotlib.pyplot as plt
import pytest

from tests.scaling.example_runs import SURFACE, runs_on_surface
from vit_scaling import scaling

EXPONENT = SURFACE["beta"] / (SURFACE["alpha"] + SURFACE["beta"])  # Hoffmann, eq. 4.


@pytest.mark.parametrize("approach", [scaling.isoflop, scaling.envelope])
def test_exponents_of_size_and_examples(approach, tmp_path):
    found = approach(runs_on_surface(noise=0.001), resamples=40)
    table = found.parameters
    assert table.loc["a", "value"] == pytest.approx(EXPONENT, abs=0.06)
    assert table["value"].sum() == pytest.approx(1)  # C = 6ND.
    assert table.loc["a", "low"] <= table.loc["a", "value"] <= table.loc["a", "high"]
    row = found.optimal(1e22).iloc[0]
    assert row["examples"] == pytest.approx(1e22 / (6 * row["size"]))
    assert row["size_low"] <= row["size"] <= row["size_high"]
    assert found.predict(1e22).equals(found.optimal(1e22))
    assert found.plot().get_legend().get_texts()
    plt.close("all")
    assert found.answer in found.report(tmp_path / "r.html").read_text()
    assert json.loads(found.to_json())["parameters"][0]["coefficient"] == "a"


def test_profiles_are_a_table():
    table = scaling.isoflop(runs_on_surface(), resamples=0).profiles
    assert list(table.columns) == ["compute", "runs", "size", "loss"]
    assert len(table) == 8
