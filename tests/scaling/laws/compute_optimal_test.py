"""Best sizes without a surface agree with those of the planted surface."""
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path

import numpy as np
import pytest

from tests.scaling.example_runs import SURFACE, runs_on_law, runs_on_surface
from vit_scaling.scaling.laws.compute_optimal import (
    find_budgets,
    fit_envelope_sizes,
    fit_isoflop_sizes,
)
from vit_scaling.scaling.laws.run_tables import runs_from

TABLES = Path(__file__).parents[4] / "shared" / "tables"
EXPONENT = SURFACE["beta"] / (SURFACE["alpha"] + SURFACE["beta"])  # Hoffmann, eq. 4.


def best_size(compute):
    """Hoffmann et al. 2022, equation 4."""
    a, b = SURFACE["alpha"], SURFACE["beta"]
    scale = (a * SURFACE["A"] / (b * SURFACE["B"])) ** (1 / (a + b))
    return scale * (compute / 6) ** EXPONENT


def test_isoflop_profiles_find_the_best_sizes():
    profiles, sizes = fit_isoflop_sizes(runs_on_surface(), resamples=50)
    assert len(profiles) == 8
    assert sizes.exponent == pytest.approx(EXPONENT, abs=0.02)
    assert sizes.size_at(1e21) == pytest.approx(best_size(1e21), rel=0.1)
    low, high = np.percentile(sizes.samples[:, 1], [2.5, 97.5])
    assert low <= sizes.exponent <= high


def test_the_envelope_finds_the_exponent():
    sizes = fit_envelope_sizes(runs_on_surface(), resamples=50)
    assert sizes.exponent == pytest.approx(EXPONENT, abs=0.06)
    assert sizes.samples.shape[1] == 2


def test_budgets_have_several_sizes():
    runs = runs_on_surface()
    groups = find_budgets(runs)
    assert [len(group) for group in groups] == [7] * 8
    assert all(np.ptp(np.log(runs.compute[group])) <= 0.2 for group in groups)


def test_too_few_budgets_are_explained():
    with pytest.raises(ValueError, match=r"at least 3 budgets with 4 .*0 of 0"):
        fit_isoflop_sizes(runs_on_law())
    with pytest.raises(ValueError, match="at least 3 runs on the frontier; 1 of 3"):
        fit_envelope_sizes(runs_on_surface().take([0, 1, 2]))


@pytest.mark.skipif(not TABLES.is_dir(), reason="needs ../shared/tables")
def test_hoffmann_exponents_are_near_one_half():
    """Hoffmann et al. 2022, Table 2: 0.50 by the envelope, 0.49 by isoFLOP profiles."""
    runs = runs_from(TABLES / "chinchilla_figure4_extracted.csv", where="loss<4")
    _, sizes = fit_isoflop_sizes(runs, resamples=0)
    assert sizes.exponent == pytest.approx(0.49, abs=0.04)
    assert fit_envelope_sizes(runs, resamples=1).exponent == pytest.approx(
        0.5, abs=0.03
    )
