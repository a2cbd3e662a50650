"""The right law extrapolates best, and laws that are equal are called equal."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.scaling.example_runs import LAW, runs_on_law, runs_on_surface
from vit_scaling.scaling.laws.extrapolation import compare_laws, verdict


def test_the_planted_law_extrapolates_better_than_simpler_ones():
    names = ["power law (M1)", "with shift", "with floor and shift (the paper)"]
    rows = compare_laws(runs_on_law(LAW, count=40), names=names, resamples=0)
    assert rows[0].name == "with floor and shift (the paper)"
    assert rows[0].extrapolation_error < 0.01 < rows[1].extrapolation_error
    assert rows[0].interval is rows[1].ratio_to_best is None


def test_a_wrong_law_is_distinguished_and_a_generalisation_is_not():
    # Without shift, the law with a floor and the paper's are the same.
    law = type(LAW)(a=0.4, b=0.32, c=0.12, d=0.0)
    names = ["power law (M1)", "with floor (M2)", "with floor and shift (the paper)"]
    rows = compare_laws(runs_on_law(law, count=60, noise=0.005), names=names)
    by_name = {row.name: row for row in rows}
    assert by_name["power law (M1)"].is_worse
    assert not by_name["with floor (M2)"].is_worse
    assert not by_name["with floor and shift (the paper)"].is_worse
    assert "do not tell it apart from with floor" in verdict(rows)
    low, high = rows[0].interval
    assert low < rows[0].extrapolation_error < high


def test_surfaces_compete_where_sizes_are_known():
    runs = runs_on_surface(noise=0.002)
    rows = compare_laws(runs, held_out=0.3, resamples=0)
    by_name = {row.name: row for row in rows}
    assert by_name["chinchilla"].extrapolation_error < 0.01
    assert {"kaplan", "M4"} <= by_name.keys()
    rows = compare_laws(runs_on_law(), held_out=0.2, resamples=0)
    assert "chinchilla" not in {row.name for row in rows}


def test_too_few_points_are_explained():
    with pytest.raises(ValueError, match="Too few points to hide any"):
        compare_laws(runs_on_law(count=6))
