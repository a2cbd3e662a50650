"""Predict the error at new budgets, and of the largest runs from the others (§2.2)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from vit_scaling.scaling.laws.bootstrap import Bootstrap, bootstrap
from vit_scaling.scaling.laws.power_law import (
    Fit,
    PowerLaw,
    fit_power_law,
    prepare_runs,
)
from vit_scaling.scaling.laws.runs import Floats, Runs

Interval = tuple[float, float]


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


def _pairs(band: Floats) -> list[Interval | None]:
    return [(float(low), float(high)) for low, high in band.T]


@dataclasses.dataclass(frozen=True)
class HiddenRunPrediction:
    """The best of the most expensive runs, predicted from the other runs.

    Attributes:
        hidden: The runs that were left out, in words.
        fitted: Number of frontier points that were fitted.
        compute: Compute of the best hidden run.
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
    runs: Runs, fit: Fit, *, resamples: int = 300, seed: int = 0
) -> list[HiddenRunPrediction]:
    """Predict the largest runs from the others, to see how well the law extrapolates.

    Hidden in turn: all runs above a tenth and a hundredth of the largest frontier
    compute, and the most expensive model, the two and the three most expensive ones.

    Args:
        runs: The runs that were given to `fit_power_law`.
        fit: Its result; the same loss and slack are used.
        resamples: Bootstraps for the intervals.
        seed: Seed of the bootstrap.
    """
    runs = prepare_runs(runs, loss=fit.loss)
    return [
        _predict_hidden(runs, hidden, kept, fit, resamples, seed)
        for hidden, kept in _subsets(runs, float(fit.points.compute.max()))
        if kept.any() and not kept.all()
    ]


def _subsets(runs: Runs, largest: float) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Yield what is hidden in words, and a mask of the runs that are kept."""
    for factor in (10, 100):
        limit = largest / factor
        yield f"runs above {limit:.4g} {runs.unit.label}", runs.compute <= limit
    for count in range(1, min(4, len(runs.models) - 1)):
        names = runs.models[-count:]
        kept = np.array([run.model not in names for run in runs])
        yield f"models {', '.join(names)}", kept


def _predict_hidden(
    runs: Runs,
    hidden: str,
    kept: npt.NDArray[np.bool_],
    fit: Fit,
    resamples: int,
    seed: int,
) -> HiddenRunPrediction:
    rest, unseen = runs.take(np.flatnonzero(kept)), runs.take(np.flatnonzero(~kept))
    best = unseen.rows[int(np.argmin(unseen.error))]
    try:
        partial = fit_power_law(rest, loss=fit.loss, slack=fit.slack)
        boot = bootstrap(rest, partial, resamples=resamples, seed=seed)
    except (ValueError, RuntimeError):
        return HiddenRunPrediction(hidden, 0, best.compute, best.error, None, None)
    (prediction,) = predict(boot, [best.compute])
    return HiddenRunPrediction(
        hidden,
        len(partial.points),
        best.compute,
        best.error,
        prediction.error,
        prediction.run_interval,
    )
