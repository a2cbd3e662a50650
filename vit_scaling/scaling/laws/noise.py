"""Noise of runs: between repeated seeds, or the largest that a frontier allows."""
# SPDX-License-Identifier: Apache-2.0

import collections
import statistics

import numpy as np

from vit_scaling.scaling.laws.power_law import PowerLaw
from vit_scaling.scaling.laws.runs import Floats, Runs

MIN_REPETITIONS = 10
_QUANTILES = (0.03, 0.15)


def noise_between_seeds(runs: Runs) -> float | None:
    """Return the standard deviation of log error between repetitions.

    The result is None below `MIN_REPETITIONS` repetitions.
    """
    groups: dict[tuple[object, ...], list[float]] = {}
    for run in runs:
        if run.error > 0:
            groups.setdefault(run.key[:-1], []).append(float(np.log(run.error)))
    freedom = sum(len(group) - 1 for group in groups.values())
    if freedom < MIN_REPETITIONS:
        return None
    squares = sum(len(group) * float(np.var(group)) for group in groups.values())
    return float(np.sqrt(squares / freedom))


def count_repetitions(runs: Runs) -> Floats:
    """Return the number of seeds of each run of `runs.averaged_over_seeds()`."""
    counted = collections.Counter(run.key[:-1] for run in runs)
    return np.array(list(counted.values()), float)


def bound_noise(law: PowerLaw, runs: Runs) -> float:
    """Return a noise that is rarely below that of the runs, from their lower edge.

    About any curve, log error is noise plus something independent of it: what the
    curve misses and the excess of sizes that are not the best. The distance between
    two quantiles of such a sum is at least that of normal noise alone (Lewis and
    Thompson 1981). Low quantiles have the least excess.

    Args:
        law: The law of the frontier.
        runs: Runs with errors above 0.
    """
    low, high = np.quantile(np.log(runs.error / law.error_at(runs.compute)), _QUANTILES)
    normal = [statistics.NormalDist().inv_cdf(q) for q in _QUANTILES]
    return float((high - low) / (normal[1] - normal[0]))
