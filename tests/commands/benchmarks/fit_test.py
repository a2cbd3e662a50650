"""The benchmark of fits times both methods, and its peer finds the same law."""
# SPDX-License-Identifier: Apache-2.0

import json

import numpy as np

from vit_scaling.commands import benchmark
from vit_scaling.commands.benchmarks import fit
from vit_scaling.scaling.laws.bootstrap import bootstrap
from vit_scaling.scaling.laws.power_law import fit_power_law
from vit_scaling.scaling.laws.simulated_studies import TRUTHS, simulate_runs


def test_every_program_is_timed(capsys):
    flags = ["--runs=60", "--resamples=20", "--rounds=2", "--json"]
    assert benchmark.main(["fit", *flags]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["seconds"]) == {"frontier", "surface", "curve_fit"}
    for ratio in result["curve_fit_over"].values():
        assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]


def test_peer_fits_the_resamples_that_the_package_fits():
    runs = simulate_runs(TRUTHS["law"], 260, fit.NOISE, np.random.default_rng(0))
    fitted = fit_power_law(runs)
    law = fitted.law
    start = np.array([law.a, law.b, law.c, law.d])
    peers = fit.fit_resamples_by_curve_fit(runs, start, 20)
    ours = bootstrap(runs, fitted, resamples=20).samples
    assert len(ours) == len(peers) == 20
    budgets = np.geomspace(runs.compute.min(), runs.compute.max(), 5)
    errors = [
        a * (budgets + d) ** -b + c for a, b, c, d in np.concatenate([ours, peers])
    ]
    # Resamples are weighted alike, so each pair minimises one sum of squares.
    np.testing.assert_allclose(
        np.sort(errors[:20], axis=0), np.sort(errors[20:], axis=0), rtol=2e-3
    )
