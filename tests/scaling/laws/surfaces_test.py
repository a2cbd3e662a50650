"""Surfaces recover planted coefficients, and the published ones from published runs."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import approx_fprime, least_squares

from tests.scaling.example_runs import SURFACE, runs_on_surface, surface_loss
from vit_scaling.scaling.laws.run_tables import runs_from
from vit_scaling.scaling.laws.runs import Run, Runs
from vit_scaling.scaling.laws.surface_forms import SURFACES
from vit_scaling.scaling.laws.surfaces import Surface, fit_surface, problem_of

TABLES = Path(__file__).parents[4] / "shared" / "tables"
needs_tables = pytest.mark.skipif(
    not TABLES.is_dir(), reason="needs ../shared/tables next to the checkout"
)


def values(fit):
    names = SURFACES[fit.surface.form].names
    return dict(zip(names, fit.surface.values, strict=True))


def kaplan_loss(n, d):
    """Kaplan et al. 2020, equation 1.5, with the coefficients of its Table 2."""
    return ((6.4e13 / n) ** (0.076 / 0.103) + 1.8e13 / d) ** 0.103


@pytest.mark.parametrize("loss", ["huber", "squared"])
def test_a_planted_chinchilla_surface_is_recovered(loss):
    fit = fit_surface(runs_on_surface(), loss=loss, resamples=0)
    assert values(fit) == pytest.approx(SURFACE, rel=1e-3)
    assert fit.converged
    assert fit.surface.loss_at([1e8], [1e10])[0] == pytest.approx(
        surface_loss(1e8, 1e10), rel=1e-6
    )


def test_a_planted_kaplan_surface_is_recovered():
    fit = fit_surface(runs_on_surface(loss=kaplan_loss), form="kaplan", resamples=0)
    planted = {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103}
    assert values(fit) == pytest.approx(planted, rel=1e-2)


def test_the_joint_form_has_kaplans_surface_as_a_special_case():
    """E = 0, alpha = alpha_N / alpha_D, beta = 1, gamma = alpha_D."""
    fit = fit_surface(runs_on_surface(loss=kaplan_loss), form="joint", resamples=0)
    found = fit.surface.loss_at([1e8, 3e10], [1e12, 1e10])
    expected = [kaplan_loss(1e8, 1e12), kaplan_loss(3e10, 1e10)]
    assert found == pytest.approx(expected, rel=2e-3)


def repeated_loss(n, d, unique):
    """Muennighoff et al. 2023, equations 5 and 6, for n below the best of `unique`."""
    used = min(unique, d)
    effective = used + used * 15 * (1 - np.exp(-(d / used - 1) / 15))
    return surface_loss(n, effective)


def test_repeated_data_count_less():
    rows = []
    for n in (2e7, 4e7, 8e7, 1.6e8):
        for unique in (2e9, 8e9, 3.2e10):
            for epochs in (1, 4, 16, 64):
                d = unique * epochs
                rows.append(Run(f"{n}", 6 * n * d, float(repeated_loss(n, d, unique)),
                    compute_unit="flops", target="loss", parameters=n, images_seen=d,
                    data_size=unique))  # fmt: skip
    fit = fit_surface(Runs(tuple(rows)), form="repetition", resamples=0)
    found = values(fit)
    assert found.pop("R_D") == pytest.approx(15, rel=0.05)
    assert found["alpha"] == pytest.approx(SURFACE["alpha"], rel=0.05)
    law = fit.surface.loss_at([1e8], [6.4e10], [4e9])
    assert law[0] == pytest.approx(repeated_loss(1e8, 6.4e10, 4e9), rel=2e-3)


@pytest.mark.parametrize("name", SURFACES)
def test_gradients_agree_with_finite_differences(name):
    problem = problem_of(name, runs_on_surface(noise=0.01, unique=1e10))
    start = next(iter(problem.starts()))
    weight = np.ones(len(problem.loss))
    _, gradient = problem.objective(start, weight)
    expected = approx_fprime(start, lambda c: problem.objective(c, weight)[0], 1e-7)
    assert gradient == pytest.approx(expected, rel=2e-3, abs=1e-3)


@needs_tables
def test_the_published_fit_is_reproduced_from_the_published_file():
    """Besiroglu et al. 2024: Huber loss, the five largest losses left out."""
    runs = runs_from(TABLES / "chinchilla_figure4_extracted.csv")
    fit = fit_surface(runs, leave_out_largest=5, resamples=20)
    found = values(fit)
    for name in ("E", "alpha", "beta"):
        assert found[name] == pytest.approx(SURFACE[name], abs=0.01)
    for name in ("A", "B"):
        assert found[name] == pytest.approx(SURFACE[name], rel=0.05)
    assert len(fit.left_out) == 5
    assert fit.left_out.error.min() > fit.runs.error.max()
    assert fit.samples.values.shape == (20, 5)


def test_squares_have_the_minimum_that_least_squares_finds():
    runs = runs_on_surface(noise=0.01)
    found = values(fit_surface(runs, loss="squared", resamples=0))

    def residuals(p):
        law = p[0] + np.exp(p[1]) / runs.parameters ** p[2]
        law = law + np.exp(p[3]) / runs.images_seen ** p[4]
        return np.log(np.maximum(law, 1e-9)) - np.log(runs.error)

    start = [SURFACE["E"], np.log(SURFACE["A"]), 0.35, np.log(SURFACE["B"]), 0.37]
    best = least_squares(residuals, start, x_scale="jac", xtol=1e-14, ftol=1e-14).x
    expected = [best[0], np.exp(best[1]), np.exp(best[3]), best[2], best[4]]
    assert list(found.values()) == pytest.approx(expected, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["huber", "squared"])
def test_intervals_hold_the_planted_coefficients(loss):
    """Of 95 % intervals, 60 studies: more than 9 miss in 0.1 % of cases."""
    missed = np.zeros(5)
    for study in range(60):
        runs = runs_on_surface(noise=0.01, seed=study)
        fit = fit_surface(runs, resamples=200, seed=study, loss=loss)
        low, high = np.percentile(fit.samples.values, [2.5, 97.5], axis=0)
        truth = np.array(list(SURFACE.values()))
        missed += (truth < low) | (truth > high)
    assert missed.max() <= 9, missed


def test_checkpoints_of_one_run_are_drawn_together():
    runs = runs_on_surface(noise=0.01)
    names = [f"run {run.compute:.3g}" for run in runs]
    rows = [dataclasses.replace(run, training_run=name)
            for run, name in zip(runs, names, strict=True)]  # fmt: skip
    one = fit_surface(runs, resamples=40).samples.values.std(axis=0)
    clustered = fit_surface(Runs(tuple(rows)), resamples=40).samples.values.std(axis=0)
    assert len(set(Runs(tuple(rows)).clusters)) == 8
    assert not np.allclose(one, clustered)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"parameters": None},
            r"number of parameters .*56 of 56 .*--size_column",
        ),
        ({"images_seen": None}, r"number of examples of every run.*--examples_column"),
        ({"parameters": 1e8}, r"nearly the same size.*--size_column"),
        ({"error": 0.0}, "A loss of 0 has no logarithm"),
    ],
)
def test_runs_without_sizes_are_explained(change, message):
    rows = [dataclasses.replace(run, **change, model=str(k))
            for k, run in enumerate(runs_on_surface())]  # fmt: skip
    with pytest.raises(ValueError, match=message):
        fit_surface(Runs(tuple(rows)))


def test_bad_arguments_are_explained():
    runs = runs_on_surface()
    with pytest.raises(ValueError, match="Did you mean 'chinchilla'"):
        fit_surface(runs, form="chinchila")
    with pytest.raises(ValueError, match="between 0 and 55; received 56"):
        fit_surface(runs, leave_out_largest=56)
    with pytest.raises(ValueError, match=r"saw their data several times.*--data_size"):
        fit_surface(runs, form="repetition")
    with pytest.raises(ValueError, match="needs at least 6 runs; received 5"):
        fit_surface(runs.take(range(5)))


def test_resamples_are_laws_of_their_own():
    coefficients = np.arange(15.0).reshape(3, 5) / 20
    surface = Surface("chinchilla", coefficients, (0.0, 0.0))
    assert surface.loss_at([1.0, 2.0], [1.0, 2.0]).shape == (3, 2)
