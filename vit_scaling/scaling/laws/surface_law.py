"""Fit the law to runs that are moved to the best size of their compute.

Intervals come from resampling the runs; surface, valley and law are fitted again each
time, so the choice of the best size is part of the uncertainty.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import numpy as np
import numpy.typing as npt

from vit_scaling.scaling.laws.batched_fit import SQUARED_LOG_ERROR, fit_many
from vit_scaling.scaling.laws.blas_threads import one_blas_thread
from vit_scaling.scaling.laws.bootstrap import draw_counts
from vit_scaling.scaling.laws.error_surface import Valley, fit_valley
from vit_scaling.scaling.laws.runs import Floats

_BINS = 60  # Of compute; more points than this do not change a law, only its cost.
# A law fits a real envelope only in part. Each resample leaves out the runs up to a
# random point of this fraction of the range of log compute: a law whose extrapolation
# depends on the cheapest runs gets a wider interval.
_MAX_CUT = 0.4


@dataclasses.dataclass(frozen=True)
class SurfaceLaw:
    """The law along the valley of the error surface, and its resamples.

    Attributes:
        coefficients: (a, b, c, d) of E = a(C + d)^-b + c, shape (4,).
        converged: Whether the fit gave a law.
        samples: The same of every resample, shape (resamples, 4).
        samples_converged: Whether each resample gave a law, shape (resamples,).
        corrected_error: Error of each run moved to the best size, shape (runs,).
        valley: The surface; `valley.inside` marks the runs to which the law is fitted.
    """

    coefficients: Floats
    converged: bool
    samples: Floats
    samples_converged: npt.NDArray[np.bool_]
    corrected_error: Floats
    valley: Valley


def fit_surface_law(
    compute: Floats,
    size: Floats,
    error: Floats,
    *,
    cluster: npt.ArrayLike | None = None,
    weight: Floats | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> SurfaceLaw:
    """Fit surface and law to all runs, and to each of `resamples` resamples.

    Args:
        compute: Compute of the runs, shape (runs,).
        size: Size of their models in any unit, shape (runs,).
        error: Errors above 0, shape (runs,).
        cluster: Runs of one value are resampled together, such as the checkpoints of
            one training; None: each run by itself.
        weight: Weight of each run; None: 1.
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Raises:
        ValueError: Too few runs are near the best size of their compute.
    """
    with one_blas_thread():
        return _fit(compute, size, error, cluster, weight, resamples, seed)


def _fit(
    compute: Floats,
    size: Floats,
    error: Floats,
    cluster: npt.ArrayLike | None,
    weight: Floats | None,
    resamples: int,
    seed: int,
) -> SurfaceLaw:
    valley = fit_valley(compute, size, error)
    generator = np.random.default_rng(seed)
    runs = len(compute)
    drawn = draw_counts(
        np.arange(runs) if cluster is None else cluster, resamples, generator
    )
    weights = np.concatenate([np.ones((1, runs)), drawn])
    weights *= 1.0 if weight is None else weight
    log_error = valley.log_error - valley.excess(weights)
    order = np.flatnonzero(valley.inside)
    order = order[np.argsort(compute[order], kind="stable")]
    x, y, weights = compute[order], log_error[:, order], weights[:, order]
    fit = fit_many(x, np.exp(y[0]), weights[:1], loss=SQUARED_LOG_ERROR)
    coefficients = fit.coefficients[0]
    log_x = np.log(x)
    cut = log_x[0] + generator.uniform(0, _MAX_CUT, resamples) * np.ptp(log_x)
    weights[1:] *= log_x >= cut[:, None]
    samples = fit_many(
        *_binned(x, y[1:], weights[1:], coefficients), loss=SQUARED_LOG_ERROR, starts=2
    )
    return SurfaceLaw(
        coefficients,
        bool(fit.converged[0]),
        samples.coefficients,
        samples.converged,
        np.exp(log_error[0]),
        valley,
    )


def _binned(
    compute: Floats, log_error: Floats, weights: Floats, coefficients: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return compute, error and weights of at most `_BINS` groups of similar compute.

    Residuals about the law are averaged, not errors: a bin's compute may differ between
    resamples, its residual hardly does.
    """
    a, b, c, d = coefficients
    runs = len(compute)
    starts = np.unique(np.linspace(0, runs, _BINS + 1).astype(int)[:-1])
    sums = np.add.reduceat(weights, starts, axis=1)
    residual = log_error - np.log(a * (compute + d) ** -b + c)
    means = np.add.reduceat(weights * residual, starts, axis=1) / np.maximum(sums, 1e-9)
    centres = np.exp(
        np.add.reduceat(np.log(compute), starts) / np.diff(np.append(starts, runs))
    )
    return centres, np.exp(means) * (a * (centres + d) ** -b + c), sums
