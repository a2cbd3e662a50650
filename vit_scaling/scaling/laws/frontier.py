"""Pareto frontier of error against compute (Figure 2)."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vit_scaling.scaling.laws.runs import Floats, Run, Runs


def frontier_indices(compute: Floats, error: Floats, *, slack: float = 0.0) -> Any:
    """Return the positions of the runs that no cheaper run beats, cheapest first.

    Among runs with equal compute the best is kept, with equal error the cheapest.

    Args:
        compute: Compute of each run, shape (runs,).
        error: Error of each run, shape (runs,).
        slack: Also keep runs whose error exceeds the frontier's by at most this
            fraction. A strict frontier keeps lucky runs; with noise of s, a slack of
            about 2s keeps their unlucky neighbours too.

    Returns:
        Integer positions, shape (frontier runs,).

    Raises:
        ValueError: The lengths differ or are 0, or `slack` is negative.

    Example:
        >>> frontier_indices(np.array([1., 2., 3.]), np.array([.5, .6, .4])).tolist()
        [0, 2]
    """
    compute, error = np.asarray(compute, float), np.asarray(error, float)
    if compute.ndim != 1 or compute.shape != error.shape or not len(compute):
        raise ValueError(
            "`compute` and `error` must be two lists of one length, not empty; "
            f"received shapes {compute.shape} and {error.shape}."
        )
    if slack < 0:
        raise ValueError(f"`slack` must be 0 or more; received {slack}.")
    order = np.lexsort((error, compute))
    counts = np.ones((1, len(order)))
    return order[frontier_mask(error[order], counts, slack=slack)[0]]


def frontier_mask(
    error: Floats,
    counts: Floats,
    *,
    slack: float = 0.0,
    compute: Floats | None = None,
) -> npt.NDArray[np.bool_]:
    """Mark the frontier of many resamples at once.

    Args:
        error: Errors, sorted by compute, then by error, shape (runs,), or (resamples,
            runs) if they differ between resamples.
        counts: How often each resample has each run, shape (resamples, runs).
        slack: See `frontier_indices`.
        compute: Compute of the runs, shape (runs,), where errors of equal compute are
            not sorted; None: they are.

    Returns:
        True where a run is on its resample's frontier, shape (resamples, runs).
    """
    present = np.where(counts > 0, error, np.inf)
    if compute is not None:
        first, tie = np.unique(compute, return_index=True, return_inverse=True)[1:]
        lowest = np.minimum.reduceat(present, first, axis=1)[:, tie]
        present = np.where(present <= lowest * (1 + slack), present, np.inf)
    best = np.minimum.accumulate(present, axis=1)
    if slack:
        return np.isfinite(present) & (present <= best * (1 + slack))
    before = np.concatenate([np.full((len(best), 1), np.inf), best[:, :-1]], axis=1)
    return present < before


def frontier(runs: Runs, *, slack: float = 0.0) -> Runs:
    """Return the runs on the Pareto frontier, cheapest first."""
    return runs.take(frontier_indices(runs.compute, runs.error, slack=slack))


def frontiers_by(
    runs: Runs, group: Callable[[Run], Any], *, slack: float = 0.0
) -> dict[Any, Runs]:
    """Return a frontier per group, such as `lambda run: run.model`."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(group(run), []).append(run)
    return {
        name: frontier(Runs(tuple(rows)), slack=slack) for name, rows in groups.items()
    }
