"""Predict the error at new budgets, and of the largest runs from the others (§2.2)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from vit_scaling.scaling.laws.bootstrap import Bootstrap
from vit_scaling.scaling.laws.frontier import frontier
from vit_scaling.scaling.laws.law_estimates import (
    LawEstimate,
    LawOptions,
    estimate_law,
)
from vit_scaling.scaling.laws.power_law import PowerLaw, prepare_runs
from vit_scaling.scaling.laws.runs import Floats, Run, Runs

Interval = tuple[float, float]
_FARTHEST = 1e9  # Compute over that of the largest run, to find an error's compute.


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The law at one budget.

    Attributes:
        compute: In the runs' unit.
        error: Predicted error as a fraction.
        interval: Interval of the law; None without a bootstrap.
        run_interval: Interval of one new run on the frontier: the law's, plus the
            scatter of runs about it.
    """

    compute: float
    error: float
    interval: Interval | None
    run_interval: Interval | None


def predict(law: PowerLaw | Bootstrap, compute: Sequence[float]) -> list[Prediction]:
    """Return the error at new budgets, with intervals if `law` is a bootstrap.

    Raises:
        ValueError: A budget is not above 0.
    """
    budgets = np.atleast_1d(np.asarray(compute, float))
    if not (np.isfinite(budgets).all() and (budgets > 0).all()):
        raise ValueError(f"A budget must be above 0; received {compute!r}.")
    laws: list[Interval | None] = [None] * len(budgets)
    runs = laws
    if isinstance(law, Bootstrap):
        laws, runs = _pairs(law.band(budgets)), _pairs(law.run_band(budgets))
        law = law.fit.law
    rows = zip(
        budgets.tolist(), law.error_at(budgets).tolist(), laws, runs, strict=True
    )
    return [Prediction(*row) for row in rows]


@dataclasses.dataclass(frozen=True)
class NeededCompute:
    """The compute that the law needs for one error; None: no compute suffices.

    Attributes:
        error: The error, as the runs have it.
        compute: In the runs' unit.
        interval: Where the interval of the law's error contains `error`; None without
            a bootstrap. Its upper end is None where no compute surely suffices.
    """

    error: float
    compute: float | None
    interval: tuple[float | None, float | None] | None


def needed_compute(
    law: PowerLaw | Bootstrap, errors: Sequence[float]
) -> list[NeededCompute]:
    """Return the compute for each error, with intervals if `law` is a bootstrap.

    Raises:
        ValueError: An error is not above 0.
    """
    if not all(np.isfinite(error) and error > 0 for error in errors):
        raise ValueError(
            "`errors` must be finite and above 0, fractions where the runs have error "
            f"rates; received {list(errors)!r} (--compute_for)."
        )
    if isinstance(law, PowerLaw):
        return [NeededCompute(e, _finite(law.compute_for(e)), None) for e in errors]
    known = law.fit.points.compute
    compute = np.geomspace(known.min() * 1e-3, known.max() * _FARTHEST, 3001)
    low, high = law.band(compute)
    point = law.fit.law.compute_for
    return [
        NeededCompute(
            error,
            _finite(point(error)),
            (_crossing(compute, low, error), _crossing(compute, high, error)),
        )
        for error in errors
    ]


def _finite(compute: float) -> float | None:
    return compute if np.isfinite(compute) else None


def _crossing(compute: Floats, curve: Floats, error: float) -> float | None:
    """Return the lowest compute from which a curve is at most `error`, if any."""
    below = np.flatnonzero(curve <= error)
    if not len(below):
        return None
    k = below[0]
    if not k:
        return 0.0
    way = np.log(curve[k - 1] / error) / np.log(curve[k - 1] / curve[k])
    return float(compute[k - 1] * (compute[k] / compute[k - 1]) ** way)


def _pairs(band: Floats) -> list[Interval | None]:
    return [(float(low), float(high)) for low, high in band.T]


@dataclasses.dataclass(frozen=True)
class HiddenRunPrediction:
    """The frontier's most expensive hidden run, predicted from the other runs.

    Runs that a cheaper one beats are not compared: the law is that of the best runs.

    Attributes:
        hidden: The runs that were left out, in words.
        fitted: Number of points that were fitted.
        compute: Compute of the hidden run.
        actual: Its error.
        predicted: Predicted error; None if the other runs gave no law.
        interval: Of a new run at this compute; None without a law.
    """

    hidden: str
    fitted: int
    compute: float
    actual: float
    predicted: float | None
    interval: Interval | None

    @property
    def relative_error(self) -> float | None:
        """(predicted - actual)/actual; above 0: the run is better than predicted.

        None if nothing was predicted, or the run's error is 0.
        """
        if self.predicted is None or self.actual == 0:
            return None
        return self.predicted / self.actual - 1


def predict_hidden_runs(
    runs: Runs, law: LawEstimate, *, resamples: int = 300, seed: int = 0
) -> list[HiddenRunPrediction]:
    """Predict the largest runs from the others, to see how well the law extrapolates.

    Hidden in turn: all runs above a tenth and a hundredth of the largest frontier
    compute, and the most expensive model, the two and the three most expensive ones. A
    set without a run on the frontier is left out.

    Args:
        runs: The runs that were given to `estimate_law`.
        law: Its result; the same method, loss and slack are used.
        resamples: Bootstraps for the intervals.
        seed: Seed of the bootstrap.
    """
    best = frontier(prepare_runs(runs, loss=law.fit.loss))
    rows = []
    for hidden, keep in _subsets(runs, float(best.compute.max())):
        unseen = [run for run in best if not keep(run)]
        rest = tuple(run for run in runs if keep(run))
        if unseen and rest:
            last = unseen[-1]
            rows.append(_predict_hidden(hidden, last, Runs(rest), law, resamples, seed))
    return rows


def _subsets(runs: Runs, largest: float) -> Iterator[tuple[str, Callable[[Run], bool]]]:
    """Yield what is hidden in words, and whether a run is kept."""
    for factor in (10, 100):
        limit = largest / factor
        keep = partial(_is_cheap, limit=limit)
        yield f"runs above {limit:.4g} {runs.unit.label}", keep
    for count in range(1, min(4, len(runs.models) - 1)):
        names = runs.models[-count:]
        yield f"models {', '.join(names)}", partial(_is_of_other, names=names)


def _is_cheap(run: Run, limit: float) -> bool:
    return run.compute <= limit


def _is_of_other(run: Run, names: Sequence[str]) -> bool:
    return run.model not in names


def _predict_hidden(
    hidden: str, last: Run, rest: Runs, law: LawEstimate, resamples: int, seed: int
) -> HiddenRunPrediction:
    try:
        options = LawOptions(
            method=law.method,
            loss=law.fit.loss,
            slack=law.fit.slack,
            resamples=resamples,
            seed=seed,
        )
        estimate = estimate_law(rest, options)
    except (ValueError, RuntimeError):
        return HiddenRunPrediction(hidden, 0, last.compute, last.error, None, None)
    if estimate.bootstrap is None:
        return HiddenRunPrediction(hidden, 0, last.compute, last.error, None, None)
    (prediction,) = predict(estimate.bootstrap, [last.compute])
    return HiddenRunPrediction(
        hidden,
        len(estimate.fit.points),
        last.compute,
        last.error,
        prediction.error,
        prediction.run_interval,
    )
