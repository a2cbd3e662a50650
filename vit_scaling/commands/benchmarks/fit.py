"""Seconds of a law's bootstrap, compared with a loop over SciPy's curve_fit."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_scaling.commands.benchmarks import alternation, records
from vit_scaling.commands.benchmarks.records import Table

PACKAGES = ("numpy", "scipy")
PROGRAMS = {
    "frontier": "method frontier",
    "surface": "method surface",
    "curve_fit": "curve_fit loop",
}
NOISE = 0.01  # Standard deviation of log error.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags: the size of the simulated study."""
    add = parser.add_argument
    add("--runs", type=int, default=260, help="runs of the study")
    add("--resamples", type=int, default=1000, help="bootstraps")
    alternation.add_timing_flags(add, rounds=3)


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return the seconds of each method and of the peer, and the peer's over ours.

    Ours are whole estimates with intervals, by the method "frontier" and by "surface".
    The peer fits the frontier of each resample only, from the coefficients of all runs:
    a good start, which spares it a search.
    """
    from vit_scaling.scaling.laws.law_estimates import LawOptions, estimate_law
    from vit_scaling.scaling.laws.power_law import fit_power_law
    from vit_scaling.scaling.laws.simulated_studies import TRUTHS, simulate_runs

    alternation.check_positive(arguments, ("runs", "resamples", "rounds"))
    generator = np.random.default_rng(0)
    runs = simulate_runs(TRUTHS["law"], arguments.runs, NOISE, generator)
    law = fit_power_law(runs).law
    start = np.array([law.a, law.b, law.c, law.d])
    programs: dict[str, Any] = {
        method: functools.partial(
            estimate_law,
            runs,
            LawOptions(method=method, resamples=arguments.resamples),
        )
        for method in ("frontier", "surface")
    }
    programs["curve_fit"] = functools.partial(
        fit_resamples_by_curve_fit, runs, start, arguments.resamples
    )
    seconds = alternation.time_alternating(
        programs,
        rounds=arguments.rounds,
        warmup_rounds=1,
        clock=alternation.CLOCKS[arguments.clock],
    )
    return {
        **{name: getattr(arguments, name) for name in ("runs", "resamples", "clock")},
        "seconds": {
            name: alternation.spread(values) for name, values in seconds.items()
        },
        "curve_fit_over": {
            name: alternation.ratio_spread(seconds["curve_fit"], seconds[name])
            for name in ("frontier", "surface")
        },
    }


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return the seconds of each program, next to the peer's."""
    over = {"curve_fit": 1.0, **result["curve_fit_over"]}
    rows = [
        {"program": PROGRAMS[name], **seconds, "over": over[name]}
        for name, seconds in result["seconds"].items()
    ]
    columns = {
        "program": "program",
        **records.SECONDS,
        "over": "curve_fit's time over it",
    }
    title = "Bootstrap of a law next to curve_fit"
    return [records.make_table("fit_speed", "Scaling laws", title, columns, rows)]


def fit_resamples_by_curve_fit(
    runs: Any, start: np.ndarray, resamples: int
) -> np.ndarray:
    """Return (a, b, c, d) of each resample's frontier, shape (resamples, 4)."""
    from scipy.optimize import curve_fit

    from vit_scaling.scaling.laws.bootstrap import draw_counts
    from vit_scaling.scaling.laws.frontier import frontier_indices

    def log_law(
        compute: np.ndarray, a: float, b: float, c: float, d: float
    ) -> np.ndarray:
        return np.log(a * (compute + d) ** -b + c)

    bounds = ([1e-12, 1e-3, 0.0, 0.0], [np.inf, 10.0, 1.0, np.inf])
    fits = []
    for counts in draw_counts(np.arange(len(runs)), resamples, 0):
        drawn = np.flatnonzero(counts)
        best = drawn[frontier_indices(runs.compute[drawn], runs.error[drawn])]
        fitted, _ = curve_fit(
            log_law,
            runs.compute[best],
            np.log(runs.error[best]),
            p0=start,
            sigma=counts[best] ** -0.5,
            bounds=bounds,
            max_nfev=5000,
        )
        fits.append(fitted)
    return np.array(fits)
