"""What the law expects of a new budget, and what it would have foretold (§2.2)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Sequence

import numpy as np

from vit_scaling.scaling.laws.bootstrap import Bootstrap, bootstrap
from vit_scaling.scaling.laws.power_law import PowerLaw, fit_power_law, weighted_runs
from vit_scaling.scaling.laws.runs import Floats, Runs


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The law at one budget.

    Attributes:
        compute: In the runs' unit.
        error: What the law says, as a fraction.
        interval: Where the law lies; None if the runs were too few to resample.
        run_interval: Where one new run on the frontier lies: the law and its scatter.
    """

    compute: float
    error: float
    interval: tuple[float, float] | None
    run_interval: tuple[float, float] | None


def predict(boot: Bootstrap, compute: Sequence[float]) -> list[Prediction]:
    """Return the law at new budgets, with the intervals of the bootstrap.

    Raises:
        ValueError: A budget is not above 0.
    """
    budgets = _checked(compute)
    law = boot.fit.law.error_at(budgets)
    band, wide = boot.band(budgets), boot.run_band(budgets)
    return [
        Prediction(
            float(budgets[k]),
            float(law[k]),
            (float(band[0, k]), float(band[1, k])),
            (float(wide[0, k]), float(wide[1, k])),
        )
        for k in range(len(budgets))
    ]


def predict_without_interval(
    law: PowerLaw, compute: Sequence[float]
) -> list[Prediction]:
    """Return the law at new budgets, where there is no bootstrap.

    Raises:
        ValueError: A budget is not above 0.
    """
    budgets = _checked(compute)
    pairs = zip(budgets, law.error_at(budgets), strict=True)
    return [Prediction(float(c), float(e), None, None) for c, e in pairs]


def _checked(compute: Sequence[float]) -> Floats:
    budgets = np.atleast_1d(np.asarray(compute, float))
    if not (np.isfinite(budgets).all() and (budgets > 0).all()):
        raise ValueError(f"A budget must be above 0; received {compute!r}.")
    return budgets


@dataclasses.dataclass(frozen=True)
class Hindcast:
    """The most expensive runs, predicted from the others.

    Attributes:
        hidden: What was left out, in words.
        fitted: How many frontier points were left to fit.
        compute: Compute of the best hidden run.
        actual: Its error.
        predicted: The error that the rest predicts; None if the rest gave no law.
        interval: Of a new run, from the rest; None without a law.
    """

    hidden: str
    fitted: int
    compute: float
    actual: float
    predicted: float | None
    interval: tuple[float, float] | None

    @property
    def relative_error(self) -> float | None:
        """(predicted - actual)/actual; above 0: the run came out better.

        None if nothing was predicted, or the run made no error at all.
        """
        if self.predicted is None or self.actual == 0:
            return None
        return self.predicted / self.actual - 1


def hindcasts(
    runs: Runs, *, resamples: int = 300, seed: int = 0, **options: object
) -> list[Hindcast]:
    """Return how far off the law would have been, had the largest runs been unknown.

    Hidden in turn: all runs above a tenth and a hundredth of the largest frontier
    compute, and the most expensive model, the two and the three most expensive ones.

    Args:
        runs: Runs of one metric.
        resamples: For the intervals.
        seed: Of the resampling.
        **options: Of `fit_power_law`.
    """
    first = fit_power_law(runs, **options)  # type: ignore[arg-type]
    runs = weighted_runs(runs, loss=first.loss)
    top = float(first.points.compute.max())
    cases = [
        (f"runs above {top / share:.4g}", runs.compute <= top / share)
        for share in (10, 100)
    ]
    for count in range(1, min(4, len(runs.models) - 1)):
        names = runs.models[-count:]
        kept = np.array([run.model not in names for run in runs])
        cases.append((f"models {', '.join(names)}", kept))
    made = []
    for hidden, kept in cases:
        if kept.all() or not kept.any():
            continue
        made.append(_hindcast(runs, hidden, kept, resamples, seed, options))
    return made


def _hindcast(
    runs: Runs,
    hidden: str,
    kept: np.ndarray,
    resamples: int,
    seed: int,
    options: dict[str, object],
) -> Hindcast:
    left = runs.take(np.flatnonzero(kept))
    unseen = runs.take(np.flatnonzero(~kept))
    best = unseen.rows[int(np.argmin(unseen.error))]
    try:
        fit = fit_power_law(left, **options)  # type: ignore[arg-type]
        boot = bootstrap(left, fit, resamples=resamples, seed=seed)
    except (ValueError, RuntimeError):
        return Hindcast(hidden, 0, best.compute, best.error, None, None)
    said = predict(boot, [best.compute])[0]
    return Hindcast(
        hidden,
        len(fit.points),
        best.compute,
        best.error,
        said.error,
        said.run_interval,
    )
