"""Laws of one variable, such as compute: the paper's, M1 to M4, broken power laws."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vit_scaling.naming import unknown_name_message
from vit_scaling.scaling.laws.blas_threads import one_blas_thread
from vit_scaling.scaling.laws.runs import Floats

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
        names: The coefficients as the formula has them.
        published: (internal coefficients, shape (coefficients, …), the compute and the
            error that they are over) to the values of `names`.
    """

    formula: str
    law: Law
    floor: int | None
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    starts: tuple[tuple[float, ...], ...]
    names: tuple[str, ...]
    published: Callable[[Floats, float, float], Sequence[Floats]]


@dataclasses.dataclass(frozen=True)
class LawFit:
    """A fitted form; `error_at` takes compute in the runs' unit."""

    name: str
    coefficients: tuple[float, ...]
    unit: float
    converged: bool
    scale: float = 1.0

    def error_at(self, compute: Floats) -> Floats:
        """Return the error or loss, of the shape of `compute`."""
        x = np.asarray(compute, float) / self.unit
        return self.scale * FORMS[self.name].law(np.array(self.coefficients), x)

    @property
    def values(self) -> dict[str, float]:
        """The coefficients of the formula, for compute in the runs' unit, by name."""
        form, inner = FORMS[self.name], np.array(self.coefficients)
        values = form.published(inner, self.unit, self.scale)
        return dict(zip(form.names, map(float, values), strict=True))


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
    for _ in range(45):
        middle = (low + high) / 2
        with np.errstate(divide="ignore"):
            value = np.log(middle - floor) - alpha * np.log(chance - middle)
        above = value > target
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.maximum((low + high) / 2, 1e-12)


def broken_power_law(coefficients: Floats, x: Floats) -> Floats:
    """Return a + b x^-c0 (1 + (x/d)^(1/f))^(-c1 f), Caballero et al. 2023, equation 1.

    Args:
        coefficients: b, c0, a, c1, log d and f.
        x: Compute, shape (points,).
    """
    b, c0, a, c1, log_d, f = coefficients
    log_bend = np.logaddexp(0, (np.log(x) - log_d) / f)
    return np.asarray(a + b * np.exp(-c0 * np.log(x) - c1 * f * log_bend))


_B, _C = (0.15, 0.4, 0.9), (0.3, 0.9)
_LOW, _HIGH = 1e-9, 1e3
# fmt: off
# x is compute over its geometric mean u, errors are over s. Starts of the first
# coefficient are relative to the mean error, those of the floor to the minimum error.
# M1 to M4: arXiv 2209.06640; BNSL: arXiv 2210.14891.
FORMS: dict[str, LawForm] = {
    "power law (M1)": LawForm(
        "a C^-b", lambda p, x: p[0] * x ** -p[1], None,
        (_LOW, 1e-3), (_HIGH, 10), ((1,), _B),
        ("a", "b"), lambda p, u, s: (s * p[0] * u ** p[1], p[1])),
    "with floor (M2)": LawForm(
        "a C^-b + c", lambda p, x: p[0] * x ** -p[1] + p[2], 2,
        (_LOW, 1e-3, 0), (_HIGH, 10, 1), ((0.5,), _B, _C),
        ("a", "b", "c"), lambda p, u, s: (s * p[0] * u ** p[1], p[1], s * p[2])),
    "with shift": LawForm(
        "a (C + d)^-b", lambda p, x: p[0] * (x + p[2]) ** -p[1], None,
        (_LOW, 1e-3, 0), (_HIGH, 10, 1e6), ((1,), _B, (0.0, 0.1, 1.0)),
        ("a", "b", "d"), lambda p, u, s: (s * p[0] * u ** p[1], p[1], u * p[2])),
    "with floor and shift (the paper)": LawForm(
        "a (C + d)^-b + c", lambda p, x: p[0] * (x + p[3]) ** -p[1] + p[2], 2,
        (_LOW, 1e-3, 0, 0), (_HIGH, 10, 1, 1e6), ((0.5,), _B, _C, (0.01, 0.1)),
        ("a", "b", "c", "d"),
        lambda p, u, s: (s * p[0] * u ** p[1], p[1], s * p[2], u * p[3])),
    "M3": LawForm(
        "beta (1/C + gamma)^c", lambda p, x: p[0] * (1 / x + p[1]) ** p[2], None,
        (_LOW, 0, 1e-3), (_HIGH, 1e6, 10), ((1,), (1e-4, 1e-2), _B),
        ("beta", "gamma", "c"),
        lambda p, u, s: (s * p[0] * u ** p[2], p[1] / u, p[2])),
    "M4": LawForm(
        "(E - e_inf)/(e_0 - E)^alpha = beta C^-c", m4_error, 3,
        (_LOW, 1e-3, 0, 0, 0.02), (_HIGH, 10, 10, 1, 1),
        ((0.5,), _B, (0.5,), _C, (0.9,)),
        ("beta", "c", "alpha", "e_inf", "e_0"),
        lambda p, u, s: (p[0] * u ** p[1] * s ** (1 - p[2]), p[1], p[2], s * p[3],
                         s * (p[3] + p[4] * (1 - p[3])))),
    "broken (BNSL)": LawForm(
        "a + b C^-c0 (1 + (C/d)^(1/f))^(-c1 f)", broken_power_law, 2,
        (_LOW, 0, 0, -3, -10, 0.05), (_HIGH, 10, 1, 10, 10, 5),
        ((0.5,), _B[:2], _C, (0.2,), (-1.0, 1.0), (0.3,)),
        ("b", "c0", "a", "c1", "d", "f"),
        lambda p, u, s: (s * p[0] * u ** p[1], p[1], s * p[2], p[3],
                         u * np.exp(p[4]), p[5])),
}
# fmt: on


def fit_form(
    name: str,
    compute: Floats,
    error: Floats,
    weight: Floats,
    *,
    start: LawFit | None = None,
) -> LawFit:
    """Fit one form by least squares of log(law) - log(error), from several starts.

    Args:
        name: Key of `FORMS`.
        compute: Compute, or another variable, shape (points,).
        error: Errors or losses above 0, shape (points,).
        weight: Weight of every point, shape (points,).
        start: A fit to similar points, to start from it alone.

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
    # Bounds are those of fractions; a loss is divided by twice its maximum.
    scale = 1.0 if error.max() <= 1 else 2 * float(error.max())
    unit = float(np.exp(np.log(compute).mean()))
    if start is not None:
        unit, scale = start.unit, start.scale
    x, y, root = compute / unit, error / scale, np.sqrt(weight)

    def residual(p: Floats) -> Floats:
        law = np.maximum(form.law(p, x), 1e-12)
        return np.asarray(root * (np.log(law) - np.log(y)))

    starts, bounds = _starts_and_bounds(form, y)
    if start is not None:
        inside = (bounds[0] + 1e-10, bounds[1] - 1e-10)
        starts = [np.clip(start.coefficients, *inside)]

    def solve(start: Floats, evaluations: int) -> Any:
        return least_squares(
            residual, start, bounds=bounds, x_scale="jac", max_nfev=evaluations
        )

    with one_blas_thread():
        best = min((solve(p, 40) for p in starts), key=lambda result: result.cost)
        if best.status == 0:  # Not there yet.
            best = solve(best.x, 1000)
    return LawFit(name, tuple(map(float, best.x)), unit, best.status > 0, scale)


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
