"""The law along the valley holds the truth where the frontier's minimum does not."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.scaling.laws.power_law import PowerLaw
from vit_scaling.scaling.laws.simulated_studies import LAW, TRUTHS, simulate_runs
from vit_scaling.scaling.laws.surface_law import fit_surface_law


def simulated(count=300, noise=0.02, seed=0):
    runs = simulate_runs(TRUTHS["law"], count, noise, np.random.default_rng(seed))
    return runs.compute, runs.compute / runs.images_seen, runs.error


def test_a_planted_law_is_recovered_without_noise():
    law = fit_surface_law(*simulated(noise=0.0), resamples=20)
    assert law.converged
    fitted = PowerLaw(*law.coefficients)
    at = np.array([10.0, 1e3, 1e6])
    np.testing.assert_allclose(fitted.error_at(at), LAW.error_at(at), rtol=2e-3)


def test_noise_does_not_bias_the_law():
    """3 % noise makes the minimum over 1,000 runs 5 % too low."""
    law = fit_surface_law(*simulated(count=600, noise=0.03), resamples=20)
    assert PowerLaw(*law.coefficients).error_at(1e7) == pytest.approx(
        float(LAW.error_at(1e7)), rel=0.025
    )


def test_checkpoints_of_one_training_are_drawn_together():
    """With all rows in one cluster every resample is the table itself."""
    rows = simulated(count=60)
    law = fit_surface_law(*rows, cluster=np.zeros(60), resamples=20)
    ahead = [PowerLaw(*sample).error_at(1e5) for sample in law.samples]
    by_rows = fit_surface_law(*rows, resamples=20)
    others = [PowerLaw(*sample).error_at(1e5) for sample in by_rows.samples]
    assert np.std(ahead) < 0.5 * np.std(others)  # What is left comes from the cut.


def test_the_same_seed_gives_the_same_samples():
    first, second = (
        fit_surface_law(*simulated(count=60), resamples=20, seed=3) for _ in range(2)
    )
    np.testing.assert_array_equal(first.samples, second.samples)
