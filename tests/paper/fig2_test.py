"""Figure 2: one default recipe gives both published laws back."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.scaling.laws.paper_results import (
    METRICS,
    PUBLISHED_LAWS,
    PUBLISHED_RANGES,
    paper_runs,
)
from vit_scaling.scaling.laws.power_law import fit_power_law


@pytest.mark.parametrize("metric", PUBLISHED_LAWS)
def test_curve_is_within_three_percent_of_the_published_one(metric):
    runs, published = paper_runs(metric), PUBLISHED_LAWS[metric]
    fit = fit_power_law(runs)
    for low, high in (
        (runs.compute.min(), runs.compute.max()),
        PUBLISHED_RANGES[metric],
    ):
        grid = np.geomspace(low, high, 400)
        assert fit.law.error_at(grid) == pytest.approx(
            published.error_at(grid), rel=0.03
        )
    assert fit.law.b == pytest.approx(published.b, abs=0.03)
    assert fit.law.c == pytest.approx(published.c, abs=0.01)


@pytest.mark.parametrize("metric", METRICS)
def test_the_same_settings_serve_every_metric(metric):
    """Pets misfits by its noise, as the caption of Figure 9 admits."""
    fit = fit_power_law(paper_runs(metric))
    assert fit.converged
    assert fit.rms_log_error < (0.11 if "pets" in metric else 0.045)
