"""Choose among laws by how well they predict the most expensive runs (§2.2)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from vit_scaling.scaling.laws.alternative_laws import FORMS, LawFit, fit_form
from vit_scaling.scaling.laws.batched_fit import SQUARED_LOG_ERROR
from vit_scaling.scaling.laws.bootstrap import draw_counts
from vit_scaling.scaling.laws.frontier import frontier_indices
from vit_scaling.scaling.laws.power_law import find_fitting_points, prepare_runs
from vit_scaling.scaling.laws.runs import Floats, Runs
from vit_scaling.scaling.laws.surface_forms import SURFACES
from vit_scaling.scaling.laws.surfaces import Surface, problem_of

HELD_OUT = (0.2, 0.35, 0.5)
_MIN_FITTED = 6  # The largest forms have six coefficients.
_NORMAL_95 = 1.96


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Errors of one law on its data and ahead of them.

    Attributes:
        name: Key of `FORMS` or `SURFACES`.
        formula: The law as text.
        extrapolation_error: Root mean square of log(law) - log(error) over the frontier
            runs more expensive than those fitted, all cuts together.
        interval: Its 95 % interval from resampled runs, on a log scale; None without
            resamples.
        ratio_to_best: Interval of its extrapolation error over the best law's, on the
            same resamples; None for the best law, or without resamples.
        fit_error: The same over all points, when fitted to all.
        converged: Whether the fit to all points reached a minimum.
    """

    name: str
    formula: str
    extrapolation_error: float
    interval: tuple[float, float] | None
    ratio_to_best: tuple[float, float] | None
    fit_error: float
    converged: bool

    @property
    def is_worse(self) -> bool:
        """Whether the data tell this law apart from the best one."""
        return self.ratio_to_best is not None and self.ratio_to_best[0] > 1


class _Candidate:
    """A form, with its fits to the runs below each cut."""

    def __init__(self, name: str, runs: Runs, points: Sequence[int]) -> None:
        self.name, self.runs = name, runs
        self.points = np.asarray(points)  # Positions of the frontier in `runs`.
        self.laws: dict[int, LawFit] = {}  # By the number of points fitted.
        self.surfaces: dict[int, Surface] = {}

    def residuals(self, kept: int, weight: Floats) -> Floats:
        """Fit to the runs below a cut; return log(law/error) on the frontier.

        Args:
            kept: Number of frontier points below the cut.
            weight: Weight of every run, shape (runs,).
        """
        fit = self._fit_surface if self.name in SURFACES else self._fit_law
        law = fit(kept, weight)
        error = self.runs.error[self.points]
        return np.log(np.maximum(law, 1e-12)) - np.log(error)

    def _fit_law(self, kept: int, weight: Floats) -> Floats:
        compute, error = self.runs.compute[self.points], self.runs.error[self.points]
        some = slice(None, kept)
        used = weight[self.points]
        start = self.laws.get(kept)
        fit = fit_form(self.name, compute[some], error[some], used[some], start=start)
        self.laws.setdefault(kept, fit)
        return fit.error_at(compute)

    def _fit_surface(self, kept: int, weight: Floats) -> Floats:
        last = self.runs.compute[self.points[kept - 1]]
        below = np.flatnonzero(self.runs.compute <= last)
        problem = problem_of(self.name, self.runs.take(below))
        start = self.surfaces.get(kept)
        starts = problem.starts() if start is None else [start.coefficients]
        _, best, _ = problem.minimize_from(starts, weight[below])
        surface = Surface(self.name, best, problem.centre)
        self.surfaces.setdefault(kept, surface)
        return surface.loss_at(
            self.runs.parameters[self.points], self.runs.images_seen[self.points]
        )


def compare_laws(
    runs: Runs,
    *,
    held_out: float | Sequence[float] = HELD_OUT,
    names: Sequence[str] | None = None,
    slack: float = 0.0,
    resamples: int = 30,
    seed: int = 0,
) -> list[Comparison]:
    """Rank laws by how well they predict the frontier's most expensive points.

    Laws of compute are fitted to the rest of the frontier, surfaces to all runs that
    are no more expensive. Intervals come from runs drawn with replacement, on which all
    laws are fitted again.

    Args:
        runs: Runs of one metric. Those with an error of 0 are left out because errors
            are compared by their logarithms.
        held_out: Fractions of the frontier to hide, its most expensive points. A law
            that fits well and predicts badly has too many coefficients.
        names: Keys of `FORMS` and `SURFACES`; None: all, surfaces only if every run
            has its parameters and examples.
        slack: See `frontier`.
        resamples: Number of resamples; 0: no intervals.
        seed: Seed of the resampling.

    Raises:
        ValueError: As `fit_power_law`, or the frontier has too few points to hide any.
    """
    runs = runs.averaged_over_seeds().where(lambda run: run.error > 0)
    find_fitting_points(runs, loss=SQUARED_LOG_ERROR, slack=slack)
    runs = prepare_runs(runs, loss=SQUARED_LOG_ERROR)
    points = frontier_indices(runs.compute, runs.error, slack=slack)
    fractions = [held_out] if isinstance(held_out, float) else list(held_out)
    cuts = [len(points) - max(round(part * len(points)), 1) for part in fractions]
    cuts = [kept for kept in cuts if kept >= _MIN_FITTED]
    if not cuts:
        raise ValueError(
            "Too few points to hide any: comparing laws needs a frontier of at least "
            f"{_MIN_FITTED + 1}; received {len(points)}."
        )
    weights = draw_counts(runs.clusters, resamples, seed) * runs.weight
    # A resample must have enough of the frontier to fit, and some of the rest.
    weights = weights[[_is_usable(weight[points], cuts) for weight in weights]]
    results = [
        _assess(_Candidate(name, runs, points), cuts, weights)
        for name in _choose_names(runs, names)
    ]
    return _rank(results)


def _is_usable(weight: Floats, cuts: Sequence[int]) -> bool:
    used = weight > 0
    return all(used[:k].sum() >= _MIN_FITTED and used[k:].any() for k in cuts)


def _choose_names(runs: Runs, names: Sequence[str] | None) -> Sequence[str]:
    if names is not None:
        return names
    sizes = np.concatenate([runs.parameters, runs.images_seen])
    is_surface = np.isfinite(sizes).all() and len(set(runs.parameters)) > 2
    return [*FORMS, *(("chinchilla", "kaplan") if is_surface else ())]


@dataclasses.dataclass(frozen=True)
class _Assessment:
    name: str
    ahead: float
    samples: Floats  # Extrapolation error of each resample.
    fit_error: float
    converged: bool


def _assess(candidate: _Candidate, cuts: Sequence[int], weights: Floats) -> _Assessment:
    points, runs = candidate.points, candidate.runs
    everything = runs.weight[points]
    ahead = _extrapolation_error(candidate, cuts, runs.weight)
    samples = [_extrapolation_error(candidate, cuts, weight) for weight in weights]
    residual = candidate.residuals(len(points), runs.weight)
    law = candidate.laws.get(len(points))
    return _Assessment(
        candidate.name,
        ahead,
        np.array(samples),
        float(np.sqrt(np.average(residual**2, weights=everything))),
        law is None or law.converged,
    )


def _extrapolation_error(
    candidate: _Candidate, cuts: Sequence[int], weight: Floats
) -> float:
    """Return the root mean square of log(law/error) beyond the cuts."""
    residuals = [candidate.residuals(kept, weight)[kept:] for kept in cuts]
    used = [weight[candidate.points][kept:] for kept in cuts]
    squares = np.concatenate(residuals) ** 2
    return float(np.sqrt(np.average(squares, weights=np.concatenate(used))))


def _rank(results: Sequence[_Assessment]) -> list[Comparison]:
    results = sorted(results, key=lambda row: row.ahead)
    best = results[0]

    def interval(
        value: float, logs: Callable[[], Floats]
    ) -> tuple[float, float] | None:
        if len(best.samples) < 2:
            return None
        reach = _NORMAL_95 * float(np.std(logs(), ddof=1))
        return value * float(np.exp(-reach)), value * float(np.exp(reach))

    def row(result: _Assessment) -> Comparison:
        form = FORMS.get(result.name) or SURFACES[result.name]
        tiny = 1e-12  # A noiseless law has no error.
        ratio = (result.ahead + tiny) / (best.ahead + tiny)
        own, reference = result.samples + tiny, best.samples + tiny
        return Comparison(
            result.name,
            form.formula,
            result.ahead,
            interval(result.ahead, lambda: np.log(own)),
            None if result is best
            else interval(ratio, lambda: np.log(own / reference)),
            result.fit_error,
            result.converged,
        )  # fmt: skip

    return [row(result) for result in results]


def verdict(rows: Sequence[Comparison]) -> str:
    """Return what the comparison says, in one or two sentences."""
    best, *others = rows
    equal = [row.name for row in others if not row.is_worse]
    start = (
        f"{best.name!r} predicts the hidden runs best, off by "
        f"{best.extrapolation_error:.1%} (rms)."
    )
    if not equal:
        return f"{start} The data tell it apart from all others."
    return f"{start} The data do not tell it apart from {', '.join(equal)}."
