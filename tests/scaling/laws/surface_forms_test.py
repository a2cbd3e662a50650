"""Formulas of surfaces, written out, and their derivatives."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.scaling.laws.surface_forms import SURFACES

N, D, UNIQUE = 3e8, 4e10, 1e10


def log_law(name, internal, unique=D):
    """Return the form's loss at (N, D), for centres of 0."""
    logs = (np.array([np.log(value)]) for value in (N, D, unique))
    return float(np.exp(SURFACES[name].log_law(np.array(internal), *logs))[0])


def test_chinchilla_is_a_sum_of_three_terms():
    found = log_law("chinchilla", [np.log(1.8), np.log(480), np.log(2100), 0.35, 0.37])
    assert found == pytest.approx(1.8 + 480 / N**0.35 + 2100 / D**0.37)


def test_kaplan_is_equation_1_5():
    found = log_law("kaplan", [np.log(8.8e13), np.log(5.4e13), 0.076, 0.095])
    inner = (8.8e13 / N) ** (0.076 / 0.095) + 5.4e13 / D
    assert found == pytest.approx(inner**0.095)


def test_the_joint_form_is_a_power_of_chinchillas_sum():
    internal = [np.log(1.8), np.log(480), np.log(2100), 0.35, 0.37, 0.8]
    found = log_law("joint", internal)
    assert found == pytest.approx(1.8 + (480 / N**0.35 + 2100 / D**0.37) ** 0.8)


def test_repetition_discounts_repeated_data_and_excess_parameters():
    """Muennighoff et al. 2023: D' = U + U R (1 - exp(-(D/U - 1)/R)), N' likewise."""
    e, a, b, alpha, beta, r_d, r_n = 1.8, 480, 2100, 0.35, 0.37, 15.0, 5.0
    internal = [np.log(e), np.log(a), np.log(b), alpha, beta, np.log(r_d), np.log(r_n)]
    best_n = (alpha * a / (beta * b) * UNIQUE**beta) ** (1 / alpha)

    def effective(total, used, r):
        used = min(used, total)
        return used + used * r * (1 - np.exp(-(total / used - 1) / r))

    n, d = effective(N, best_n, r_n), effective(D, UNIQUE, r_d)
    expected = e + a / n**alpha + b / d**beta
    assert log_law("repetition", internal, UNIQUE) == pytest.approx(expected)


@pytest.mark.parametrize("name", [n for n, f in SURFACES.items() if f.jacobian])
def test_derivatives_are_those_of_the_formula(name):
    generator = np.random.default_rng(0)
    logs = [generator.normal(size=6) for _ in range(3)]
    form = SURFACES[name]
    c = np.abs(generator.normal(size=len(form.names))) + 0.1
    for k, found in enumerate(form.jacobian(c, *logs)):
        step = 1e-6 * np.eye(len(c))[k]
        low, high = (form.log_law(c + sign * step, *logs) for sign in (-1, 1))
        assert found == pytest.approx((high - low) / 2e-6, rel=1e-5, abs=1e-7)
