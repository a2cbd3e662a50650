"""Intervals for a fitted law: resample the runs, redo frontier and fit (§2.2)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import numpy as np
import numpy.typing as npt

from vit_scaling.scaling.laws.batched_fit import fit_many
from vit_scaling.scaling.laws.frontier import frontier_mask
from vit_scaling.scaling.laws.power_law import (
    COEFFICIENTS,
    MIN_POINTS,
    Fit,
    log_residuals,
    prepare_runs,
)
from vit_scaling.scaling.laws.runs import Floats, Runs


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """The law's coefficients on resampled runs.

    Attributes:
        fit: The fit to the runs themselves.
        samples: Coefficients (a, b, c, d) of the resamples that converged, shape
            (resamples, 4).
        drawn: Number of resamples drawn.
        level: Nominal coverage of the intervals.
        coefficients: Number of coefficients that follow the points: the law's four,
            and those of a surface that moved the points.
        split: Number of the last samples, which are of split errors: see `bootstrap`.
    """

    fit: Fit
    samples: Floats
    drawn: int
    level: float
    coefficients: int = len(COEFFICIENTS)
    split: int = 0

    @property
    def _widening(self) -> float:
        # k coefficients follow the points they are fitted to, so the residuals are too
        # small by √((n - k) / n); with n near 30 the intervals would be too.
        n = len(self.fit.points)
        return float(np.sqrt(n / max(n - self.coefficients, 1)))

    def _interval(self, samples: Floats, estimate: Floats) -> Floats:
        """Return an interval about the estimate as wide as the farther percentile.

        A strict frontier keeps lucky runs, so it is too low; the frontier of a few
        models is above that of all models, so too high. Resamples show the second on
        the other side of the estimate: percentiles alone would miss it. The interval
        is extended to the percentiles of split samples.
        """
        tail = 50 * (1 - self.level)
        whole = len(samples) - self.split
        ends = np.percentile(samples[:whole], [tail, 100 - tail], axis=0)
        reach = self._widening * np.abs(ends - estimate).max(axis=0)
        low, high = estimate - reach, estimate + reach
        if self.split:
            ends = np.percentile(samples[whole:], [tail, 100 - tail], axis=0)
            low, high = np.minimum(low, ends[0]), np.maximum(high, ends[1])
        return np.stack([low, high])

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return the interval of each coefficient, within its bounds.

        Those of a and b, which are above 0, are as wide on both sides on a log scale.
        """
        law = np.array(dataclasses.astuple(self.fit.law))
        ends = np.maximum(self._interval(self.samples, law), 0.0)
        scales = self._interval(np.log(self.samples[:, :2]), np.log(law[:2]))
        ends[:, :2] = np.exp(scales)
        return {
            name: (float(ends[0, k]), float(ends[1, k]))
            for k, name in enumerate(COEFFICIENTS)
        }

    def band(self, compute: npt.ArrayLike) -> Floats:
        """Return the interval of the law's error, shape (2, *compute).

        A new run scatters about the law as well, see `run_band`.
        """
        compute = np.atleast_1d(np.asarray(compute, float))
        logs = np.log(self._curves(compute))
        return np.exp(self._interval(logs, np.log(self.fit.law.error_at(compute))))

    def run_band(self, compute: npt.ArrayLike, *, seed: int = 0) -> Floats:
        """Return the interval of one new run: the law's plus the runs' scatter."""
        compute = np.atleast_1d(np.asarray(compute, float))
        estimate = np.log(self.fit.law.error_at(compute))
        residual = log_residuals(self.fit.law, self.fit.points)
        drawn = np.random.default_rng(seed).choice(
            residual, size=(len(self.samples), len(compute))
        )
        logs = np.log(self._curves(compute)) + drawn
        return np.exp(self._interval(logs, estimate))

    def correlations(self) -> dict[str, float]:
        """Return the rank correlation of each pair of coefficients, as {"a,b": r}."""
        ranks = np.argsort(np.argsort(self.samples, axis=0), axis=0)
        spread = ranks.std(axis=0)
        matrix = np.atleast_2d(np.corrcoef(ranks[:, spread > 0], rowvar=False))
        names = [name for name, s in zip(COEFFICIENTS, spread, strict=True) if s > 0]
        return {
            f"{first},{second}": float(matrix[i, j])
            for i, first in enumerate(names)
            for j, second in enumerate(names)
            if i < j
        }

    def notes(self) -> list[str]:
        """Return warnings about the coefficients, in sentences."""
        law, ends = self.fit.law, self.intervals()
        notes = []
        low, high = ends["d"]
        if high - low > 0.5 * max(law.d, 1e-300) or low == 0:
            cheapest = float(self.fit.points.compute.min())
            at = "at its bound 0" if high == 0 else f"from {low:.3g} to {high:.3g}"
            notes.append(
                f"d is badly determined: {at}, with the cheapest run at "
                f"{cheapest:.3g}. Do not read it; a, b and c move with it."
            )
        if ends["c"][0] <= 1e-6:
            notes.append(
                "The floor c may be zero: the runs do not reach far enough to see it."
            )
        lost = 1 - len(self.samples) / self.drawn
        if lost > 0.02:
            notes.append(
                f"{lost:.0%} of the resamples gave no law and are left out: the "
                "intervals are too narrow."
            )
        return notes

    def _curves(self, compute: Floats) -> Floats:
        a, b, c, d = self.samples.T[..., None]
        return np.asarray(a * (compute + d) ** -b + c)


def check_resampling(resamples: int, level: float) -> None:
    """Raise ValueError if a setting is out of range."""
    if not 0 < level < 1:
        raise ValueError(f"`level` must be between 0 and 1; received {level!r}.")
    if resamples < 20:
        raise ValueError(f"`resamples` must be at least 20; received {resamples!r}.")


def draw_counts(
    clusters: npt.ArrayLike,
    resamples: int,
    seed: int | np.random.Generator,
    fraction: float = 1.0,
) -> Floats:
    """Return how often each resample has each run, shape (resamples, runs).

    Args:
        clusters: Runs of one value are drawn together, shape (runs,).
        resamples: Number of resamples.
        seed: Source of randomness.
        fraction: Number of draws over the number of clusters.
    """
    names, members = np.unique(np.asarray(clusters), return_inverse=True)
    chances = np.full(len(names), 1 / len(names))
    draws = round(fraction * len(names))
    drawn = np.random.default_rng(seed).multinomial(draws, chances, size=resamples)
    return drawn[:, members].astype(float)


def bootstrap(
    runs: Runs,
    fit: Fit,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    noise: Floats | None = None,
) -> Bootstrap:
    """Resample the runs with replacement and redo the frontier and the fit each time.

    Checkpoints of one training are drawn together.

    With `noise` the resamples have half as many runs, since a frontier of few models
    may be farther above that of all sizes than resamples of all runs show. As many
    again are fitted with split errors (data fission, Leiner et al. 2023): noise z is
    drawn, the frontier is that of log E + z, and the law is fitted to log E - z, whose
    noise is independent of the choice. Such a frontier does not keep lucky runs, but
    more runs of a size that is not the best: it is too high where the other is too low.

    Args:
        runs: The runs that were given to `fit_power_law`.
        fit: Its result; the same loss and slack are used.
        resamples: Number of resamples.
        level: Coverage of the intervals.
        seed: Seed of the resampling.
        noise: Standard deviation of log error of each run, averaged over seeds, shape
            (runs,).

    Raises:
        RuntimeError: The fit did not converge, or fewer than half of the resamples did.
        ValueError: A number is out of range.
    """
    check_resampling(resamples, level)
    _ = fit.law  # Raises if the fit did not converge.
    runs = prepare_runs(runs, loss=fit.loss)
    order = np.lexsort((runs.error, runs.compute))
    clusters = runs.clusters[order]  # `take` numbers them by the new order.
    runs = runs.take(order)
    generator = np.random.default_rng(seed)
    fraction = 1.0 if noise is None else 0.5
    counts = draw_counts(clusters, resamples, generator, fraction)
    samples, split, drawn = _refit(runs, fit, counts), 0, resamples
    if noise is not None:
        counts = draw_counts(clusters, resamples, generator, fraction)
        shift = noise[order] * generator.standard_normal(counts.shape)
        more = _refit(runs, fit, counts, shift)
        samples, split = np.concatenate([samples, more]), len(more)
        drawn += resamples
    converged = len(samples) / drawn
    if min(len(samples) - split, split or resamples) < resamples / 2:
        raise RuntimeError(
            f"Only {converged:.0%} of the resamples gave a law: the runs are too few "
            "for intervals."
        )
    return Bootstrap(fit, samples, drawn, level, split=split)


def _refit(runs: Runs, fit: Fit, counts: Floats, shift: Floats | float = 0.0) -> Floats:
    """Return the coefficients of the resamples that gave a law, shape (resamples, 4).

    Args:
        runs: Runs, sorted by compute, then by error.
        fit: The fit to all runs.
        counts: See `draw_counts`.
        shift: Added to log error to choose the frontier, subtracted from it to fit.
    """
    chosen = runs.error * np.exp(shift)
    kept = frontier_mask(chosen, counts, slack=fit.slack, compute=runs.compute)
    # A run drawn twice counts twice: without this, intervals cover 90 % for 95 %.
    weights = np.where(kept, counts * runs.weight, 0.0)
    error = runs.error * np.exp(-np.asarray(shift))
    fits = fit_many(runs.compute, error, weights, loss=fit.loss, starts=2)
    return fits.coefficients[fits.converged & (kept.sum(axis=1) >= MIN_POINTS)]
