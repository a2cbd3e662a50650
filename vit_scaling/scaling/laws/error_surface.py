"""A smooth surface of error over compute and model size, and its valley.

The minimum over noisy runs is biased low, the more so the more runs there are. The
minimum of a smooth surface through all runs near the best sizes is not: each run is
moved to the best size of its compute by the surface's own difference.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vit_scaling.scaling.laws.runs import Floats

MAX_EXCESS = 0.3  # Runs whose log error is farther above the valley do not show it.
_DEGREES = (2, 3, 4, 5)
_LOWER, _UPPER = [-40, -6, -40, -6, -20, -2], [20, 2.5, 20, 2.5, 20, 2]
_SIZES = 41  # Sizes among which the best one is searched, per run.


class ParametricSurface(NamedTuple):
    """E + (A / N^α + B / D^β)^γ, with D the compute divided by the size N.

    With γ = 1 it is the surface of Hoffmann et al. 2022, with E = 0 that of Kaplan et
    al. 2020.

    Attributes:
        coefficients: Logarithms of A, α, B, β, E and γ, for N and D over `centre`.
        centre: Mean log N and mean log D.
    """

    coefficients: Floats
    centre: tuple[float, float]

    def log_error(self, log_size: Floats, log_duration: Floats) -> Floats:
        """Return log error, of the shape of the arguments."""
        log_a, alpha, log_b, beta, floor, gamma = self.coefficients
        by_size = log_a - np.exp(alpha) * (log_size - self.centre[0])
        by_duration = log_b - np.exp(beta) * (log_duration - self.centre[1])
        reducible = np.exp(gamma) * np.logaddexp(by_size, by_duration)
        return np.asarray(np.logaddexp(reducible, floor))

    def envelope(self, compute: npt.ArrayLike) -> Floats:
        """Return the lowest error over all sizes at each compute, shape (budgets,)."""
        log_compute = np.log(np.atleast_1d(np.asarray(compute, float)))[:, None]
        log_size = self.centre[0] + np.linspace(-35, 35, 4001)
        return np.exp(self.log_error(log_size, log_compute - log_size).min(axis=1))


def fit_parametric_surface(
    log_size: Floats, log_duration: Floats, log_error: Floats
) -> ParametricSurface:
    """Fit the surface to all runs by Huber's loss of log error, from several starts."""
    from scipy import optimize  # Slow to import.

    centre = float(log_size.mean()), float(log_duration.mean())
    middle, lowest = float(np.median(log_error)), float(log_error.min())
    upper = [*_UPPER[:4], lowest + 0.2, _UPPER[5]]

    def residuals(p: Floats) -> Floats:
        return (
            ParametricSurface(p, centre).log_error(log_size, log_duration) - log_error
        )

    fits = [
        optimize.least_squares(
            residuals,
            [middle - 1, np.log(slope), middle - 1, np.log(slope), lowest + floor, 0],
            bounds=(_LOWER, upper),
            x_scale="jac",
            loss="huber",
            f_scale=0.05,
            max_nfev=100,
        )
        for slope in (0.2, 0.5, 1.0)
        for floor in (-2.3, -0.35)
    ]
    best = min(fits, key=lambda fit: fit.cost)
    return ParametricSurface(best.x, centre)


@dataclasses.dataclass(frozen=True)
class Valley:
    """The surface near its valley: a parametric one times exp(polynomial).

    The polynomial in log C and log N/√C, refitted to every resample, absorbs what the
    parametric surface misses. A surface without a valley depends on compute alone.

    Attributes:
        surface: The parametric surface.
        log_error: Log error of the runs, shape (runs,).
        near: Runs within `MAX_EXCESS` of the valley, to which polynomials are fitted.
        inside: Of those, the runs whose best size is within the sizes tried.
        degree: Degree of the polynomial; 0: there is no valley.
        noise: Standard deviation of log error about the surface.
    """

    surface: ParametricSurface
    log_error: Floats
    near: npt.NDArray[np.bool_]
    inside: npt.NDArray[np.bool_]
    degree: int
    noise: float
    _x: Floats  # (runs,)
    _y: Floats  # (runs,)
    _sizes: Floats  # Values of y to search, (runs, sizes)
    _at_runs: Floats  # Log error of the parametric surface, (runs,)
    _at_sizes: Floats  # The same at `_sizes`

    @property
    def terms(self) -> int:
        """Number of the polynomial's terms; 0 without a valley."""
        return (self.degree + 1) * (self.degree + 2) // 2 if self.degree else 0

    def excess(self, weights: Floats) -> Floats:
        """Return how far log error is above the valley, shape (resamples, runs).

        Args:
            weights: Weight of each run in each resample, shape (resamples, runs).
        """
        return self._search(weights)[0]

    def _search(self, weights: Floats) -> tuple[Floats, npt.NDArray[np.int_]]:
        place = np.zeros(weights.shape, int)
        if not self.degree:
            return np.zeros(weights.shape), place
        design = _terms(self._x, self._y, self.degree)
        residual = self.log_error - self._at_runs
        factors = _solve(design, residual, weights * self.near)
        lowest = np.full(weights.shape, np.inf)
        for k in range(_SIZES):
            terms = _terms(self._x, self._sizes[:, k], self.degree)
            value = factors @ terms.T + self._at_sizes[:, k]
            place = np.where(value < lowest, k, place)
            lowest = np.minimum(value, lowest)
        return factors @ design.T + self._at_runs - lowest, place


def fit_valley(compute: Floats, size: Floats, error: Floats) -> Valley:
    """Fit the surface; Akaike's criterion (AICc) chooses the polynomial's degree.

    Args:
        compute: Compute of the runs, shape (runs,).
        size: Size of their models in any unit, such as parameters or compute per image.
        error: Errors above 0.

    Raises:
        ValueError: Too few runs are near the valley.
    """
    log_compute, log_size, log_error = np.log(compute), np.log(size), np.log(error)
    log_duration = log_compute - log_size
    surface = fit_parametric_surface(log_size, log_duration, log_error)
    at_runs = surface.log_error(log_size, log_duration)
    ratio = log_size - log_compute / 2
    sizes = _sizes_near_the_valley(surface, log_size, log_compute)
    at_sizes = surface.log_error(
        sizes + log_compute[:, None] / 2, log_compute[:, None] / 2 - sizes
    )
    near = at_runs - at_sizes.min(axis=1) < MAX_EXCESS
    x, y = _scaled(log_compute, log_compute), _scaled(ratio, ratio)
    everywhere = np.ones(len(x), bool)
    flat = [_score(_powers(x, d), log_error, everywhere) for d in _DEGREES]
    residual = log_error - at_runs
    curved = [_score(_terms(x, y, d), residual, everywhere) for d in _DEGREES]
    if min(flat) < min([_criterion(residual, 0), *curved]):
        degree, noise, near = 0, min(flat)[1], everywhere
    else:
        scores = [(*_score(_terms(x, y, d), residual, near), d) for d in _DEGREES]
        best, noise, degree = min(scores)
        if np.isinf(best):
            raise ValueError(
                f"Only {near.sum()} of {len(x)} runs are near the best size of their "
                "compute: a surface of error needs at least 18. Add runs between the "
                "best ones, or fit the frontier (--method=frontier)."
            )
    grid = _scaled(sizes, ratio)
    valley = Valley(
        *(surface, log_error, near, near, degree, noise, x, y, grid, at_runs, at_sizes)
    )
    place = valley._search(near[None].astype(float))[1][0]
    inside = near & (not degree or ((place > 0) & (place < _SIZES - 1)))
    return dataclasses.replace(valley, inside=inside)


def _sizes_near_the_valley(
    surface: ParametricSurface, log_size: Floats, log_compute: Floats
) -> Floats:
    """Return log N/√C to search for each run: those tried and near the valley."""
    half, log_duration = log_compute / 2, log_compute - log_size
    low = np.maximum(log_size.min() - half, half - log_duration.max())
    high = np.minimum(log_size.max() - half, half - log_duration.min())
    way = np.linspace(0, 1, 201)
    ratio = low[:, None] + (high - low)[:, None] * way
    value = surface.log_error(half[:, None] + ratio, half[:, None] - ratio)
    close = value - value.min(axis=1, keepdims=True) < MAX_EXCESS
    first, last = close.argmax(axis=1), 200 - close[:, ::-1].argmax(axis=1)
    rows = np.arange(len(low))
    start, end = ratio[rows, first], ratio[rows, last]
    return start[:, None] + (end - start)[:, None] * np.linspace(0, 1, _SIZES)


def _scaled(values: Floats, reference: Floats) -> Floats:
    return (values - reference.mean()) * 2 / max(float(np.ptp(reference)), 1e-12)


def _powers(x: Floats, degree: int) -> Floats:
    return np.stack([x**i for i in range(degree + 1)], axis=-1)


def _terms(x: Floats, y: Floats, degree: int) -> Floats:
    """Return the products of powers of x and y up to `degree`, shape (runs, terms)."""
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    return np.stack([x**i * y**j for i, j in powers], axis=-1)


def _solve(design: Floats, values: Floats, weights: Floats) -> Floats:
    """Return weighted least squares of every resample, shape (resamples, terms)."""
    count = design.shape[1]
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    normal = (weights @ products).reshape(-1, count, count)
    ridge = 1e-9 * np.einsum("bkk->b", normal)[:, None, None] / max(count, 1)
    right = weights @ (design * values[:, None])
    return np.linalg.solve(normal + ridge * np.eye(count), right[..., None])[..., 0]


def _score(
    design: Floats, values: Floats, used: npt.NDArray[np.bool_]
) -> tuple[float, float]:
    """Return AICc and noise of least squares, see `_criterion`."""
    factors = _solve(design, values, used[None].astype(float))[0]
    return _criterion((values - design @ factors)[used], design.shape[1])


def _criterion(residual: Floats, terms: int) -> tuple[float, float]:
    """Return AICc and the noise; infinite where the runs are too few for the terms.

    The parametric surface's six coefficients count for every candidate. A surface
    without a valley does not use them, so it must be clearly the better one.
    """
    count, runs = terms + len(_LOWER), len(residual)
    if runs < count + 6:
        return np.inf, np.inf
    squares = max(float(np.sum(residual**2)), 1e-24)
    criterion = runs * np.log(squares / runs) + 2 * count * runs / (runs - count - 1)
    return float(criterion), float(np.sqrt(squares / (runs - count)))
