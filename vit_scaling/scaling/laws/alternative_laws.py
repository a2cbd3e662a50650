"""Alternative laws for the same runs, compared by extrapolation (§2.2)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from vit_scaling.naming import unknown_name_message
from vit_scaling.scaling.laws.batched_fit import SQUARED_LOG_ERROR
from vit_scaling.scaling.laws.power_law import find_fitting_points
from vit_scaling.scaling.laws.runs import Floats, Runs

Law = Callable[[Floats, Floats], Floats]


@dataclasses.dataclass(frozen=True)
class LawForm:
    """One formula: bounds and starts of its coefficients.

    Attributes:
        formula: The law as text.
        law: (coefficients, compute over its geometric mean) to the error.
        floor: Position of the coefficient that is the error at infinite compute.
        lower: Lower bounds.
        upper: Upper bounds.
        starts: Values to start from, one list per coefficient.
    """

    formula: str
    law: Law
    floor: int | None
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    starts: tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True)
class LawFit:
    """A fitted form; `error_at` takes compute in the runs' unit."""

    name: str
    coefficients: tuple[float, ...]
    unit: float
    converged: bool

    def error_at(self, compute: Floats) -> Floats:
        """Return the error as a fraction, of the shape of `compute`."""
        x = np.asarray(compute, float) / self.unit
        return FORMS[self.name].law(np.array(self.coefficients), x)


def m4_error(coefficients: Floats, x: Floats) -> Floats:
    """Solve (E - e∞)/(e0 - E)^α = βx^-c for E by bisection: it grows with E.

    Args:
        coefficients: β, c, α, e∞ and (e0 - e∞) / (1 - e∞).
        x: Compute, shape (points,).
    """
    beta, c, alpha, floor, fraction = coefficients
    chance = floor + fraction * (1 - floor)
    target = np.log(beta) - c * np.log(x)
    low, high = np.full_like(x, floor), np.full_like(x, chance)
    for _ in range(60):
        middle = (low + high) / 2
        with np.errstate(divide="ignore"):
            value = np.log(middle - floor) - alpha * np.log(chance - middle)
        above = value > target
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.maximum((low + high) / 2, 1e-12)


_B, _C = (0.15, 0.4, 0.9), (0.3, 0.9)
_LOW, _HIGH = 1e-9, 1e3
# fmt: off
# x is compute over its geometric mean. Starts of the first coefficient are relative to
# the mean error, those of the floor to the minimum error. M1 to M4: arXiv 2209.06640.
FORMS: dict[str, LawForm] = {
    "power law (M1)": LawForm(
        "a C^-b", lambda p, x: p[0] * x ** -p[1], None,
        (_LOW, 1e-3), (_HIGH, 10), ((1,), _B)),
    "with floor (M2)": LawForm(
        "a C^-b + c", lambda p, x: p[0] * x ** -p[1] + p[2], 2,
        (_LOW, 1e-3, 0), (_HIGH, 10, 1), ((0.5,), _B, _C)),
    "with shift": LawForm(
        "a (C + d)^-b", lambda p, x: p[0] * (x + p[2]) ** -p[1], None,
        (_LOW, 1e-3, 0), (_HIGH, 10, 1e6), ((1,), _B, (0.0, 0.1, 1.0))),
    "with floor and shift (the paper)": LawForm(
        "a (C + d)^-b + c", lambda p, x: p[0] * (x + p[3]) ** -p[1] + p[2], 2,
        (_LOW, 1e-3, 0, 0), (_HIGH, 10, 1, 1e6), ((0.5,), _B, _C, (0.01, 0.1))),
    "M3": LawForm(
        "beta (1/C + gamma)^c", lambda p, x: p[0] * (1 / x + p[1]) ** p[2], None,
        (_LOW, 0, 1e-3), (_HIGH, 1e6, 10), ((1,), (1e-4, 1e-2), _B)),
    "M4": LawForm(
        "(E - e_inf)/(e_0 - E)^alpha = beta C^-c", m4_error, 3,
        (_LOW, 1e-3, 0, 0, 0.02), (_HIGH, 10, 10, 1, 1),
        ((0.5,), _B, (0.5,), _C, (0.9,))),
}
# fmt: on


def fit_form(name: str, compute: Floats, error: Floats, weight: Floats) -> LawFit:
    """Fit one form by least squares of log(law) - log(error), from several starts.

    Raises:
        ValueError: No form has this name, or there are fewer points than coefficients.
    """
    from scipy.optimize import least_squares

    if name not in FORMS:
        raise ValueError(unknown_name_message("law", name, FORMS))
    form = FORMS[name]
    if len(error) < len(form.lower):
        raise ValueError(
            f"The law {form.formula} has {len(form.lower)} coefficients; received "
            f"{len(error)} points."
        )
    unit = float(np.exp(np.log(compute).mean()))
    x, root = compute / unit, np.sqrt(weight)

    def residual(p: Floats) -> Floats:
        law = np.maximum(form.law(p, x), 1e-12)
        return np.asarray(root * (np.log(law) - np.log(error)))

    starts, bounds = _starts_and_bounds(form, error)
    results = [
        least_squares(residual, start, bounds=bounds, x_scale="jac") for start in starts
    ]
    best = min(results, key=lambda result: result.cost)
    return LawFit(name, tuple(map(float, best.x)), unit, best.status > 0)


def _starts_and_bounds(
    form: LawForm, error: Floats
) -> tuple[list[Floats], tuple[Floats, Floats]]:
    lower, upper = np.array(form.lower, float), np.array(form.upper, float)
    scale = np.ones(len(lower))
    scale[0] = error.mean()
    if form.floor is not None:
        upper[form.floor] = min(float(error.min()) * 0.999, 1)
        scale[form.floor] = error.min()
    inside = (lower + 1e-10, upper - 1e-10)
    starts = [np.clip(scale * p, *inside) for p in itertools.product(*form.starts)]
    return starts, (lower, upper)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Errors of one law on its data and ahead of them.

    Attributes:
        extrapolation_error: Root mean square of log(law) - log(error) over the points
            more expensive than those fitted, all cuts together.
        fit_error: The same over all points, when fitted to all.
    """

    name: str
    formula: str
    extrapolation_error: float
    fit_error: float
    converged: bool


def compare_laws(
    runs: Runs,
    *,
    held_out: Sequence[float] = (0.2, 0.35, 0.5),
    names: Sequence[str] | None = None,
    slack: float = 0.0,
) -> list[Comparison]:
    """Rank laws by how well they predict the frontier's most expensive points.

    Args:
        runs: Runs of one metric. Those with an error of 0 are left out because errors
            are compared by their logarithms.
        held_out: Fractions of the frontier to hide, its most expensive points. A law
            that fits well and predicts badly has too many coefficients.
        names: Keys of `FORMS`; None: all.
        slack: See `frontier`.

    Raises:
        ValueError: As `fit_power_law`, or the frontier has too few points to hide any.
    """
    runs = runs.averaged_over_seeds().where(lambda run: run.error > 0)
    points = find_fitting_points(runs, loss=SQUARED_LOG_ERROR, slack=slack)
    compute, error, weight = points.compute, points.error, points.weight
    rows = []
    for name in FORMS if names is None else names:
        ahead = []
        for fraction in held_out:
            kept = len(points) - max(round(fraction * len(points)), 1)
            if kept >= 6:  # The largest forms have five coefficients.
                fit = fit_form(name, compute[:kept], error[:kept], weight[:kept])
                ahead.append(np.log(fit.error_at(compute[kept:]) / error[kept:]))
        if not ahead:
            raise ValueError(
                "Too few points to hide any: comparing laws needs a frontier of at "
                f"least 7; received {len(points)}."
            )
        full = fit_form(name, compute, error, weight)
        residual = np.log(full.error_at(compute) / error)
        rows.append(
            Comparison(
                name,
                FORMS[name].formula,
                float(np.sqrt(np.mean(np.concatenate(ahead) ** 2))),
                float(np.sqrt(np.average(residual**2, weights=weight))),
                full.converged,
            )
        )
    return sorted(rows, key=lambda row: row.extrapolation_error)
