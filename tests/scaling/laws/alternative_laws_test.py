"""Each simpler law finds itself, and the right one extrapolates best."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.scaling.laws.alternative_laws import (
    FORMS,
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
    "broken (BNSL)": (0.2, 0.2, 0.05, 0.3, 0.5, 0.4),
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


@pytest.mark.parametrize("name", FORMS)
def test_a_loss_above_one_is_fitted_as_well_as_a_fraction(name):
    x = np.geomspace(1e-2, 1e2, 30)
    loss = 20 * FORMS[name].law(np.array(PLANTED[name]), x)
    fit = fit_form(name, 1e18 * x, loss, np.ones(30))
    assert fit.error_at(1e18 * x) == pytest.approx(loss, rel=5e-3)


# The formulas as they are printed, for the coefficients by name.
PRINTED = {
    "power law (M1)": lambda C, a, b: a * C**-b,
    "with floor (M2)": lambda C, a, b, c: a * C**-b + c,
    "with shift": lambda C, a, b, d: a * (C + d) ** -b,
    "with floor and shift (the paper)": lambda C, a, b, c, d: a * (C + d) ** -b + c,
    "M3": lambda C, beta, gamma, c: beta * (1 / C + gamma) ** c,
    "broken (BNSL)": lambda C, a, b, c0, c1, d, f: (
        a + b * C**-c0 * (1 + (C / d) ** (1 / f)) ** (-c1 * f)
    ),
}


@pytest.mark.parametrize("scale", [1, 20])
@pytest.mark.parametrize("name", FORMS)
def test_the_coefficients_are_those_of_the_printed_formula(name, scale):
    x = 1e18 * np.geomspace(1e-2, 1e2, 30)
    error = scale * FORMS[name].law(np.array(PLANTED[name]), x / 1e18)
    fit = fit_form(name, x, error, np.ones(30))
    if name == "M4":
        v, law = fit.values, fit.error_at(x)
        left = (law - v["e_inf"]) / (v["e_0"] - law) ** v["alpha"]
        assert left == pytest.approx(v["beta"] * x ** -v["c"], rel=1e-3)
    else:
        printed = PRINTED[name](x, **fit.values)
        assert printed == pytest.approx(fit.error_at(x), rel=1e-6)


def test_bad_arguments_are_explained():
    with pytest.raises(ValueError, match="Did you mean 'M3'"):
        fit_form("m3", np.ones(9), np.ones(9), np.ones(9))
    with pytest.raises(ValueError, match="has 5 coefficients; received 3"):
        fit_form("M4", np.ones(3), np.ones(3), np.ones(3))
