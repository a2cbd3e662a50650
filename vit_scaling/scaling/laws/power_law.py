"""Fit E = a(C + d)^-b + c to a compute frontier (Zhai et al. 2022, §2.2)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import numpy as np
import numpy.typing as npt

from vit_scaling.scaling.laws.batched_fit import SQUARED_LOG_ERROR, Loss, fit_many
from vit_scaling.scaling.laws.frontier import frontier
from vit_scaling.scaling.laws.runs import Floats, Runs

COEFFICIENTS = ("a", "b", "c", "d")
MIN_POINTS = 5  # Four coefficients and one to spare.


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """E = a(C + d)^-b + c, the paper's doubly saturating power law.

    Attributes:
        a: Scale; its unit depends on b.
        b: Exponent of the straight part on log axes.
        c: Error left at infinite compute, as a fraction.
        d: Shift, in units of compute: the error at zero compute is finite.
    """

    a: float
    b: float
    c: float
    d: float

    def error_at(self, compute: npt.ArrayLike) -> Floats:
        """Return the error as a fraction, of the shape of `compute`."""
        shifted = np.asarray(compute, float) + self.d
        return np.asarray(self.a * shifted**-self.b + self.c)

    def compute_for(self, error: float) -> float:
        """Return the compute that reaches `error`; infinite at or below the floor c."""
        if error <= self.c:
            return float("inf")
        return float(max(((error - self.c) / self.a) ** (-1 / self.b) - self.d, 0.0))

    def slope_at(self, compute: npt.ArrayLike) -> Floats:
        """Return -dlog E/dlog C, which is b where the law is a straight line."""
        compute = np.asarray(compute, float)
        error = self.error_at(compute)
        return self.b * (error - self.c) / error * compute / (compute + self.d)

    def __str__(self) -> str:
        """Return the law as the paper prints it."""
        if not 1e-3 < abs(self.a) < 1e3:
            return f"{self.c:.2f} + {self.a:.3g} (C + {self.d:.3g})^-{self.b:.2f}"
        return f"{self.c:.2f} + {self.a:.2f} (C + {self.d:.3g})^-{self.b:.2f}"


@dataclasses.dataclass(frozen=True)
class Fit:
    """The result of `fit_power_law`, converged or not.

    Attributes:
        points: The frontier that was fitted.
        loss: The loss that was minimised.
        reason: Why there is none; "" if converged.
        rms_log_error: Root mean square of log(law) - log(error) over the points whose
            error is not 0; NaN if the fit did not converge.
        slack: The frontier's `slack`.
    """

    points: Runs
    loss: Loss
    reason: str
    rms_log_error: float
    slack: float
    law_or_none: PowerLaw | None = dataclasses.field(repr=False, default=None)

    @property
    def converged(self) -> bool:
        """Whether the fit gave a law."""
        return self.law_or_none is not None

    @property
    def law(self) -> PowerLaw:
        """The fitted law.

        Raises:
            RuntimeError: The fit did not converge.
        """
        if self.law_or_none is None:
            raise RuntimeError(f"The fit did not converge: {self.reason}")
        return self.law_or_none


def fit_power_law(
    runs: Runs,
    *,
    loss: Loss = SQUARED_LOG_ERROR,
    slack: float = 0.0,
) -> Fit:
    """Fit the law to the Pareto frontier of `runs`.

    The paper states neither its loss nor its frontier. These defaults (all data sizes,
    strict frontier, squared log error) reproduce its two published ImageNet curves
    within 1.5 %.

    Args:
        runs: Runs of one metric; repetitions with other seeds are averaged first.
        loss: The sum that the fit minimises.
        slack: See `frontier`.

    Raises:
        ValueError: There are several metrics, too few points, no frontier, or an error
            of 0 with the log loss.

    References:
        Zhai et al. 2022, §2.2 and Figure 2.
    """
    points = find_fitting_points(runs, loss=loss, slack=slack)
    fit = fit_many(points.compute, points.error, points.weight[None], loss=loss)
    reason = find_failure(fit.coefficients[0], bool(fit.converged[0]), points)
    if reason:
        return Fit(points, loss, reason, float("nan"), slack)
    law = PowerLaw(*map(float, fit.coefficients[0]))
    return Fit(points, loss, "", _rms_log_error(law, points), slack, law)


def log_residuals(law: PowerLaw, points: Runs) -> Floats:
    """Return log(error) - log(law) of the points whose error is not 0."""
    positive = points.error > 0
    compute, error = points.compute[positive], points.error[positive]
    return np.asarray(np.log(error) - np.log(law.error_at(compute)))


def _rms_log_error(law: PowerLaw, points: Runs) -> float:
    weight = points.weight[points.error > 0]
    return float(np.sqrt(np.average(log_residuals(law, points) ** 2, weights=weight)))


def find_fitting_points(runs: Runs, *, loss: Loss, slack: float) -> Runs:
    """Return the frontier of `runs`; raise if four coefficients cannot be fitted to it.

    Raises:
        ValueError: As `fit_power_law`.
    """
    runs = prepare_runs(runs, loss=loss)
    if len(runs) < MIN_POINTS:
        raise ValueError(
            f"Too few points: the law has four coefficients, so it needs at least "
            f"{MIN_POINTS} runs of one metric; received {len(runs)}. Add models or "
            "durations."
        )
    points = frontier(runs, slack=slack)
    if len(points) == 1:
        raise ValueError(
            "There is no frontier: the cheapest run has the lowest error "
            f"({points.rows[0].model}, {points.rows[0].error:.4f}), so compute does "
            f"not reduce the error.{hint_of_rising_error(runs)}"
        )
    if len(points) < MIN_POINTS:
        raise ValueError(
            f"Too few points: only {len(points)} of {len(runs)} runs are on the "
            f"frontier, and the law needs at least {MIN_POINTS}."
            + (
                hint_of_rising_error(runs)
                or " Add runs between them, or keep near misses with slack=0.01 "
                "(--slack)."
            )
        )
    return points


def hint_of_rising_error(runs: Runs) -> str:
    """Return advice if the errors of runs grow with compute; "" if they do not."""
    ranks = [np.argsort(np.argsort(v)) for v in (runs.compute, runs.error)]
    if len(runs) < 3 or np.atleast_2d(np.corrcoef(ranks))[0, 1] <= 0:
        return ""
    return (
        " The values grow with compute: if they are accuracies, name their column with "
        "accuracy (--accuracy_column)."
    )


def prepare_runs(runs: Runs, *, loss: Loss) -> Runs:
    """Return one metric's runs of weight above 0, averaged over seeds.

    Raises:
        ValueError: Several metrics, or an error of zero with the log loss.
    """
    runs = runs.of_metric(None).averaged_over_seeds().where(lambda run: run.weight > 0)
    if loss.scale == "log" and runs.error.min() == 0:
        raise ValueError(
            "An error of 0 has no logarithm: use loss='linear' (--loss=linear), or "
            "measure on more examples."
        )
    return runs


def find_failure(coefficients: Floats, converged: bool, points: Runs) -> str:
    """Return why a fit is rejected; "" if it is accepted."""
    b, d = coefficients[1], coefficients[3]
    if not np.isfinite(coefficients).all():
        return "a coefficient is not finite."
    if b <= 1.001e-3 or b >= 9.99 or d > 1e5 * points.compute.max():
        return (
            "a coefficient ran to its bound: the points do not show this law (they "
            "may be flat, or lie on another curve)."
        )
    if not converged:
        return "no minimum was found from any start."
    return ""
