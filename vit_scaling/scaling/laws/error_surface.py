"""A smooth surface of error over compute and model size, and its valley.

The minimum over noisy runs is biased low, the more so the more runs there are. The
minimum of a smooth surface through all runs near the best sizes is not: each run is
moved to the best size of its compute by the surface's own difference.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import numpy as np
import numpy.typing as npt

from vit_scaling.scaling.laws.runs import Floats
from vit_scaling.scaling.laws.surface_forms import SURFACES
from vit_scaling.scaling.laws.surfaces import Surface, SurfaceProblem

MAX_EXCESS = 0.3  # Runs whose log error is farther above the valley do not show it.
_DEGREES = (2, 3, 4, 5)
_FORM, _DELTA = "joint", 0.05
_SIZES = 41  # Sizes among which the best one is searched, per run.


def envelope(surface: Surface, compute: npt.ArrayLike) -> Floats:
    """Return the lowest error over all sizes at each compute, shape (budgets,).

    Args:
        surface: Error by size and by compute over size.
        compute: Budgets.
    """
    log_compute = np.log(np.atleast_1d(np.asarray(compute, float)))[:, None]
    log_size = surface.centre[0] + np.linspace(-35, 35, 4001)
    log_error = surface.log_loss_at(log_size, log_compute - log_size)
    return np.asarray(np.exp(log_error.min(axis=1)))


def fit_joint_surface(size: Floats, duration: Floats, error: Floats) -> Surface:
    """Fit E + (A/N^α + B/D^β)^γ to all runs, with D the compute over the size N."""
    problem = SurfaceProblem(SURFACES[_FORM], size, duration, error, delta=_DELTA)
    _, best, _ = problem.minimize_from(problem.starts(), np.ones_like(error))
    return Surface(_FORM, best, problem.centre)


@dataclasses.dataclass(frozen=True)
class Valley:
    """The surface near its valley: the joint form times exp(polynomial).

    The polynomial in log C and log N/√C, refitted to every resample, absorbs what the
    joint form misses. A surface without a valley depends on compute alone.

    Attributes:
        surface: The joint form, fitted to all runs.
        log_error: Log error of the runs, shape (runs,).
        near: Runs within `MAX_EXCESS` of the valley, to which polynomials are fitted.
        inside: Of those, the runs whose best size is within the sizes tried.
        degree: Degree of the polynomial; 0: there is no valley.
        noise: Standard deviation of log error about the surface.
    """

    surface: Surface
    log_error: Floats
    near: npt.NDArray[np.bool_]
    inside: npt.NDArray[np.bool_]
    degree: int
    noise: float
    _x: Floats  # (runs,)
    _y: Floats  # (runs,)
    _sizes: Floats  # Values of y to search, (runs, sizes)
    _at_runs: Floats  # Log error of `surface`, (runs,)
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
    surface = fit_joint_surface(size, compute / size, error)
    at_runs = surface.log_loss_at(log_size, log_compute - log_size)
    ratio = log_size - log_compute / 2
    sizes = _sizes_near_the_valley(surface, log_size, log_compute)
    half = log_compute[:, None] / 2
    at_sizes = surface.log_loss_at(half + sizes, half - sizes)
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
    surface: Surface, log_size: Floats, log_compute: Floats
) -> Floats:
    """Return log N/√C to search for each run: those tried and near the valley."""
    half, log_duration = log_compute / 2, log_compute - log_size
    low = np.maximum(log_size.min() - half, half - log_duration.max())
    high = np.minimum(log_size.max() - half, half - log_duration.min())
    way = np.linspace(0, 1, 201)
    ratio = low[:, None] + (high - low)[:, None] * way
    value = surface.log_loss_at(half[:, None] + ratio, half[:, None] - ratio)
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

    The joint form's six coefficients count for every candidate. A surface
    without a valley does not use them, so it must be clearly the better one.
    """
    count, runs = terms + len(SURFACES[_FORM].names), len(residual)
    if runs < count + 6:
        return np.inf, np.inf
    squares = max(float(np.sum(residual**2)), 1e-24)
    criterion = runs * np.log(squares / runs) + 2 * count * runs / (runs - count - 1)
    return float(criterion), float(np.sqrt(squares / (runs - count)))
