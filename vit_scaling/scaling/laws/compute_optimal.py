"""Compute-optimal sizes without a surface: isoFLOP profiles and the envelope.

Approaches 2 and 1 of Hoffmann et al. 2022, §3.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vit_scaling.scaling.laws.bootstrap import draw_counts
from vit_scaling.scaling.laws.frontier import frontier_mask
from vit_scaling.scaling.laws.runs import Floats, Runs

MIN_SIZES = 4  # A parabola has three coefficients.
MIN_PROFILES = 3


@dataclasses.dataclass(frozen=True)
class Profile:
    """Runs of one budget, and the size at the minimum of their parabola.

    Attributes:
        compute: Geometric mean of the runs' compute.
        positions: Positions of the runs in the table.
        best_size: Parameters at the minimum; NaN if the parabola has none among the
            sizes that were trained.
        best_loss: Loss at the minimum.
        curve: Coefficients of log loss in log N, highest first.
    """

    compute: float
    positions: npt.NDArray[np.int_]
    best_size: float
    best_loss: float
    curve: Floats


@dataclasses.dataclass(frozen=True)
class PowerFit:
    """N = scale · C^exponent, and its resamples, shape (resamples, 2).

    Attributes:
        log_scale: Logarithm of the scale.
        exponent: Growth of the best size with compute.
        samples: (log scale, exponent) of each resample.
        compute: Compute of the points that were fitted.
        size: Sizes of the points.
    """

    log_scale: float
    exponent: float
    samples: Floats
    compute: Floats
    size: Floats

    def size_at(self, compute: npt.ArrayLike) -> Floats:
        """Return the best size, of the shape of `compute`."""
        return np.exp(self.log_scale + self.exponent * np.log(compute))


def find_budgets(runs: Runs, *, tolerance: float = 0.1) -> list[npt.NDArray[np.int_]]:
    """Return the positions of the runs of each budget, cheapest budget first.

    The budget with the most sizes is taken first, then that of the remaining runs, and
    so on. Each budget has at least four sizes.

    Args:
        runs: Runs with parameters.
        tolerance: Largest difference of log compute from the middle of a budget.
    """
    log_compute, size = np.log(runs.compute), runs.parameters
    free = np.ones(len(runs), bool)
    groups = []
    while free.any():
        near = (abs(log_compute - log_compute[:, None]) <= tolerance) & free
        counts = [len(set(size[row])) for row in near]
        best = int(np.argmax(counts))
        if counts[best] < MIN_SIZES:
            break
        groups.append(np.flatnonzero(near[best]))
        free &= ~near[best]
    return sorted(groups, key=lambda group: float(log_compute[group].mean()))


def isoflop_profiles(
    runs: Runs, groups: Sequence[npt.NDArray[np.int_]], weight: Floats
) -> list[Profile]:
    """Fit a parabola of log loss in log N to each budget (Hoffmann et al., §3.2).

    Args:
        runs: Runs with parameters.
        groups: From `find_budgets`.
        weight: Weight of every run, shape (runs,).
    """
    profiles = []
    for group in groups:
        log_size, log_loss = np.log(runs.parameters[group]), np.log(runs.error[group])
        root = np.sqrt(weight[group])
        compute = float(np.exp(np.log(runs.compute[group]).mean()))
        if len(set(log_size[root > 0])) < MIN_SIZES:
            curve = np.full(3, np.nan)
        else:
            # Centred, so that the squares of large numbers do not cancel.
            curve = np.polyfit(log_size - log_size.mean(), log_loss, 2, w=root)
        best = -curve[1] / (2 * curve[0]) if curve[0] > 0 else np.nan
        best_size = best + log_size.mean()
        if not log_size.min() <= best_size <= log_size.max():
            best_size = best = np.nan
        profiles.append(
            Profile(
                compute,
                group,
                float(np.exp(best_size)),
                float(np.exp(np.polyval(curve, best))),
                curve,
            )
        )
    return profiles


def fit_isoflop_sizes(
    runs: Runs, *, tolerance: float = 0.1, resamples: int = 1000, seed: int = 0
) -> tuple[list[Profile], PowerFit]:
    """Return the profiles, and the best size as a power of compute.

    Args:
        runs: Runs of one metric with parameters.
        tolerance: See `find_budgets`.
        resamples: Bootstraps of the runs.
        seed: Seed of the resampling.

    Raises:
        ValueError: Fewer than three budgets have a minimum.
    """
    groups = find_budgets(runs, tolerance=tolerance)
    profiles = isoflop_profiles(runs, groups, runs.weight)
    found = [profile for profile in profiles if np.isfinite(profile.best_size)]
    if len(found) < MIN_PROFILES:
        raise ValueError(
            f"IsoFLOP profiles need at least {MIN_PROFILES} budgets with {MIN_SIZES} "
            f"model sizes each and a minimum among them; {len(found)} of {len(groups)} "
            "budgets have one. Add sizes, or widen a budget with --tolerance."
        )
    samples = []
    for draw in draw_counts(runs.clusters, resamples, seed) * runs.weight:
        drawn = isoflop_profiles(runs, groups, draw)
        points = [(p.compute, p.best_size) for p in drawn if np.isfinite(p.best_size)]
        if len(points) >= MIN_PROFILES:
            samples.append(_power(*np.array(points).T))
    compute = np.array([profile.compute for profile in found])
    size = np.array([profile.best_size for profile in found])
    return profiles, PowerFit(
        *_power(compute, size), np.array(samples).reshape(-1, 2), compute, size
    )


def fit_envelope_sizes(runs: Runs, *, resamples: int = 1000, seed: int = 0) -> PowerFit:
    """Return the size of the runs on the frontier as a power of compute (§3.1).

    Args:
        runs: Runs of one metric with parameters.
        resamples: Bootstraps of the runs; each has a frontier of its own.
        seed: Seed of the resampling.

    Raises:
        ValueError: Fewer than three runs are on the frontier.
    """
    order = np.lexsort((runs.error, runs.compute))
    runs = runs.take(order)
    everything = np.ones((1, len(runs)))
    (kept,) = frontier_mask(runs.error, everything)
    if kept.sum() < MIN_PROFILES:
        raise ValueError(
            f"The envelope needs at least {MIN_PROFILES} runs on the frontier; "
            f"{kept.sum()} of {len(runs)} are."
        )
    draws = draw_counts(runs.clusters, resamples, seed)
    samples = [
        _power(runs.compute[mask], runs.parameters[mask])
        for mask in frontier_mask(runs.error, draws)
        if len(set(runs.compute[mask])) >= MIN_PROFILES
    ]
    compute, size = runs.compute[kept], runs.parameters[kept]
    return PowerFit(*_power(compute, size), np.array(samples), compute, size)


def _power(compute: Floats, size: Floats) -> tuple[float, float]:
    """Return (log scale, exponent) of size = scale · compute^exponent."""
    log_compute = np.log(compute)
    centre = log_compute.mean()
    exponent, level = np.polyfit(log_compute - centre, np.log(size), 1)
    return float(level - exponent * centre), float(exponent)
