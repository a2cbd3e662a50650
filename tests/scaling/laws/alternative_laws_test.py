"""Each simpler law finds itself, and the right one extrapolates best."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.scaling.example_runs import LAW, runs_on_law
from vit_scaling.scaling.laws.alternative_laws import (
    FORMS,
    compare_laws,
    fit_form,
    m4_error,
)

# One set of coefficients per form, for compute over its geometric mean.
PLANTED = {
    "power law (M1)": (0.2, 0.3),
    "with floor (M2)": (0.15, 0.35, 0.08),
    "with shift": (0.25, 0.4, 0.05),
    "with floor and shift (the paper)": (0.2, 0.35, 0.09, 0.02),
    "M3": (0.25, 0.02, 0.4),
    "M4": (0.2, 0.4, 0.5, 0.08, 0.9),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_recovers_a_planted_curve(name):
    x = np.geomspace(1e-2, 1e2, 30)
    error = FORMS[name].law(np.array(PLANTED[name]), x)
    fit = fit_form(name, x, error, np.ones(30))
    assert fit.error_at(x) == pytest.approx(error, rel=2e-3)
    assert fit.error_at(np.array([1e3])) == pytest.approx(
        FORMS[name].law(np.array(PLANTED[name]), np.array([1e3])), rel=0.02
    )


def test_m4_solves_its_equation():
    beta, c, alpha, floor, share = PLANTED["M4"]
    x = np.geomspace(0.1, 10, 7)
    error = m4_error(np.array(PLANTED["M4"]), x)
    chance = floor + share * (1 - floor)
    assert (error - floor) / (chance - error) ** alpha == pytest.approx(beta * x**-c)


def test_the_planted_law_extrapolates_better_than_simpler_ones():
    names = ["power law (M1)", "with shift", "with floor and shift (the paper)"]
    rows = compare_laws(runs_on_law(LAW, count=40), names=names)
    assert rows[0].name == "with floor and shift (the paper)"
    assert rows[0].extrapolation_error < 0.01 < rows[1].extrapolation_error


def test_bad_arguments_are_explained():
    with pytest.raises(ValueError, match="Did you mean 'M3'"):
        fit_form("m3", np.ones(9), np.ones(9), np.ones(9))
    with pytest.raises(ValueError, match="has 5 coefficients; received 3"):
        fit_form("M4", np.ones(3), np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="Too few points to hide any"):
        compare_laws(runs_on_law(count=6))
