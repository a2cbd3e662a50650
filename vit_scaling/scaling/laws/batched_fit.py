"""Fit E = a(C + d)^-b + c to many resamples of the runs at once.

A grid search gives the starts; Levenberg-Marquardt refines them.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vit_scaling.naming import check_known
from vit_scaling.scaling.laws.blas_threads import one_blas_thread
from vit_scaling.scaling.laws.runs import Floats

# Internal parameters: log a, log b, c, u, with d = s·(e^u - 1), s the minimum compute.
# Compute is divided by its geometric mean first, so that no unit is special.
LOWER = np.array([-50.0, np.log(1e-3), 0.0, 0.0])
UPPER = np.array([50.0, np.log(10.0), 1.0, np.log(1e6)])
_GRID = [
    (b, u) for b in np.geomspace(0.03, 3, 16) for u in np.log1p([0, 0.3, 1, 4, 20, 99])
]
_STATIONARY = 1e-5  # Cosine between residuals and every free column at the optimum.


@dataclasses.dataclass(frozen=True)
class Loss:
    """The loss of a fit: the sum over runs of weight × rho(residual).

    Attributes:
        scale: "log": residuals are log(law) - log(error), so relative. "linear":
            residuals are law - error, as fractions.
        robust: None for squares, "huber" or "soft_l1".
        robust_scale: Residual above which a robust loss is no longer the square.

    Raises:
        ValueError: A name is unknown, or `robust_scale` is not positive.
    """

    scale: str = "log"
    robust: str | None = None
    robust_scale: float = 0.02

    def __post_init__(self) -> None:
        check_known("loss", self.scale, ("log", "linear"))
        if self.robust is not None:
            check_known("robust", self.robust, ("huber", "soft_l1"))
        if not self.robust_scale > 0:
            raise ValueError(
                f"`robust_scale` must be above 0; received {self.robust_scale!r}."
            )

    def residual(self, model: Floats, error: Floats) -> Floats:
        """Return the residuals of predictions."""
        return np.log(model) - np.log(error) if self.scale == "log" else model - error

    def cost(self, residual: Floats, weight: Floats) -> Floats:
        """Return twice the loss of each resample, shape (resamples,)."""
        z = np.abs(residual) / self.robust_scale
        if self.robust == "huber":
            rho = np.where(z < 1, z**2, 2 * z - 1) * self.robust_scale**2
        elif self.robust == "soft_l1":
            rho = 2 * (np.sqrt(1 + z**2) - 1) * self.robust_scale**2
        else:
            rho = residual**2
        return (weight * rho).sum(axis=1)

    def influence(self, residual: Floats) -> Floats:
        """Return rho'(r) / (2r): the weight of iterated least squares."""
        z = np.abs(residual) / self.robust_scale
        if self.robust == "huber":
            return 1 / np.maximum(z, 1)
        if self.robust == "soft_l1":
            return 1 / np.sqrt(1 + z**2)
        return np.ones_like(residual)


SQUARED_LOG_ERROR = Loss()


class BatchedFit(NamedTuple):
    """Coefficients (a, b, c, d), shape (resamples, 4), and whether each converged."""

    coefficients: Floats
    cost: Floats
    converged: npt.NDArray[np.bool_]


class _Problem(NamedTuple):
    compute: Floats  # ([resamples,] runs), over its geometric mean
    error: Floats  # (resamples, runs)
    min_compute: float
    loss: Loss
    upper: Floats  # Bounds of theta; the floor is at most the largest error.


def fit_many(
    compute: Floats, error: Floats, weights: Floats, *, loss: Loss, starts: int = 3
) -> BatchedFit:
    """Fit every row of `weights`; a weight of 0 leaves a run out.

    For fixed (b, d) the law is linear in (a, c). A grid over (b, d) with that solved in
    closed form gives the starts. Levenberg-Marquardt over all four, with the bounds
    a > 0, 0.001 ≤ b ≤ 10, 0 ≤ c ≤ max(1, largest error), d ≥ 0, refines the best of
    them. A fit that ends on the bounds of a or b, or on the upper one of d, has not
    converged: the points do not show this law.

    Args:
        compute: Compute of the runs, any unit, shape (runs,).
        error: Errors as fractions, above 0 with the log loss, shape (runs,), or
            (resamples, runs) if they differ between resamples.
        weights: Weight of each run in each resample, shape (resamples, runs).
        loss: The loss to minimise.
        starts: Number of grid nodes to refine.
    """
    used = (weights > 0).any(axis=0)
    compute, weights = compute[used], weights[:, used]
    error = np.broadcast_to(error[..., used], weights.shape)
    unit = float(np.exp(np.log(compute).mean()))
    min_compute = float(compute.min()) / unit
    upper = np.array([*UPPER[:2], max(1.0, float(error.max())), UPPER[3]])
    problem = _Problem(compute / unit, error, min_compute, loss, upper)
    with one_blas_thread():
        grid_starts = _starts(problem, weights, starts)
        theta, cost, stationary = _best_of_starts(*_pack(problem, weights), grid_starts)
    inside = (theta > LOWER + 1e-9) & (theta < UPPER - 1e-9)
    valid = inside[:, 0] & inside[:, 1] & (theta[:, 3] < UPPER[3] - 1e-9)
    b = np.exp(theta[:, 1])
    d = min_compute * np.expm1(theta[:, 3]) * unit
    coefficients = np.stack([np.exp(theta[:, 0]) * unit**b, b, theta[:, 2], d], axis=1)
    return BatchedFit(coefficients, cost, stationary & valid)


def _pack(problem: _Problem, weights: Floats) -> tuple[_Problem, Floats]:
    """Move each resample's runs to the front, and drop columns without a weight.

    A frontier has few of the runs that are on any resample's frontier.
    """
    columns = np.argsort(weights == 0, axis=1, kind="stable")
    columns = columns[:, : int((weights > 0).sum(axis=1).max())]
    error, weights = (
        np.take_along_axis(values, columns, axis=1)
        for values in (problem.error, weights)
    )
    packed = problem._replace(compute=problem.compute[columns], error=error)
    return packed, weights


def _best_of_starts(
    problem: _Problem, weights: Floats, starts: list[Floats]
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Refine each start; return theta, cost and stationarity of the cheapest."""
    first, *others = starts
    theta, cost, stationary = _refine(problem, weights, first)
    for start in others:
        new_theta, new_cost, new_stationary = _refine(problem, weights, start)
        better = new_cost < cost
        theta = np.where(better[:, None], new_theta, theta)
        cost = np.where(better, new_cost, cost)
        stationary = np.where(better, new_stationary, stationary)
    return theta, cost, stationary


def _starts(problem: _Problem, weights: Floats, count: int) -> list[Floats]:
    """Return `count` starts, each (resamples, 4): the best of a grid over (b, d)."""
    x, y, min_compute = problem.compute, problem.error, problem.min_compute
    basis = np.stack([(x + min_compute * np.expm1(u)) ** -b for b, u in _GRID], axis=1)
    v = weights / y**2 if problem.loss.scale == "log" else weights
    total, f, ff = v.sum(1, keepdims=True), v @ basis, v @ basis**2  # (resamples, grid)
    fy, yy = (v * y) @ basis, (v * y**2).sum(1, keepdims=True)
    y1 = (v * y).sum(1, keepdims=True)
    determinant = total * ff - f**2
    flat = determinant <= 1e-12 * total * ff
    determinant = np.where(flat, 1.0, determinant)
    a, c = (total * fy - f * y1) / determinant, (ff * y1 - f * fy) / determinant
    outside = flat | (c < 0)
    a, c = np.where(outside, fy / ff, a), np.where(outside, 0.0, c)
    cost = yy - 2 * a * fy - 2 * c * y1 + a * a * ff + 2 * a * c * f + c * c * total
    order = np.argsort(np.where(a > 0, cost, np.inf), axis=1)
    grid_b = np.log([b for b, _ in _GRID])
    grid_u = np.array([u for _, u in _GRID])
    starts = []
    for rank in range(count):
        node = order[:, 3 * rank]  # Neighbours on the grid lead to one optimum.
        row = np.arange(len(node))
        log_a = np.log(np.maximum(a[row, node], 1e-12))
        starts.append(
            np.stack([log_a, grid_b[node], c[row, node], grid_u[node]], axis=1)
        )
    return starts


def _power(problem: _Problem, theta: Floats) -> tuple[Floats, Floats, Floats]:
    """Return s = compute + d, log s and a s^-b, each (resamples, runs)."""
    shifted = problem.compute + problem.min_compute * np.expm1(theta[:, 3:])
    log_shifted = np.log(shifted)
    log_power = theta[:, :1] - np.exp(theta[:, 1:2]) * log_shifted
    return shifted, log_shifted, np.exp(np.clip(log_power, -200, 200))


def _predict(problem: _Problem, theta: Floats) -> Floats:
    """Return predictions (resamples, runs)."""
    _, _, power = _power(problem, theta)
    return power + theta[:, 2:3]


def _predict_and_derive(problem: _Problem, theta: Floats) -> tuple[Floats, Floats]:
    """Return predictions (resamples, runs) and derivatives (resamples, 4, runs)."""
    shifted, log_shifted, power = _power(problem, theta)
    by_log = -power * np.exp(theta[:, 1:2])  # The derivative by log s.
    derivatives = np.empty((len(power), 4, power.shape[1]), power.dtype)
    derivatives[:, 0] = power
    derivatives[:, 1] = by_log * log_shifted
    derivatives[:, 2] = 1
    derivatives[:, 3] = by_log / shifted * problem.min_compute * np.exp(theta[:, 3:])
    return power + theta[:, 2:3], derivatives


def _refine(
    problem: _Problem, weights: Floats, theta: Floats, steps: int = 300
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Run Levenberg-Marquardt on all resamples; return theta, cost and stationarity."""
    theta = np.clip(theta, LOWER, problem.upper)
    loss = problem.loss
    cost = loss.cost(loss.residual(_predict(problem, theta), problem.error), weights)
    damping = np.full(len(theta), 1e-3)
    stationary = np.zeros(len(theta), bool)
    active = np.arange(len(theta))
    for _ in range(steps):
        now, weight, error = theta[active], weights[active], problem.error[active]
        part = problem._replace(compute=problem.compute[active], error=error)
        step, is_stationary = _step(part, weight, now, damping[active], cost[active])
        stationary[active] = is_stationary
        new = np.clip(now + np.clip(step, -3, 3), LOWER, part.upper)
        residual = loss.residual(_predict(part, new), error)
        new_cost = loss.cost(residual, weight)
        better = new_cost < cost[active]
        theta[active] = np.where(better[:, None], new, now)
        cost[active] = np.where(better, new_cost, cost[active])
        damping[active] *= np.where(better, 0.2, 5.0)
        active = active[~(is_stationary | (damping[active] > 1e12))]
        if not len(active):
            break
    return theta, cost, stationary


def _step(
    problem: _Problem, weight: Floats, theta: Floats, damping: Floats, cost: Floats
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return the damped Gauss-Newton step and whether the gradient already vanishes."""
    model, jacobian = _predict_and_derive(problem, theta)
    residual = problem.loss.residual(model, problem.error)
    if problem.loss.scale == "log":
        jacobian /= model[:, None]
    weight = weight * problem.loss.influence(residual)
    gradient = (jacobian @ (weight * residual)[..., None])[..., 0]
    normal = (jacobian * weight[:, None]) @ jacobian.transpose(0, 2, 1)
    above = (theta >= problem.upper) & (gradient < 0)
    outward = ((theta <= LOWER) & (gradient > 0)) | above
    diagonal = np.einsum("bkk->bk", normal).copy()
    gradient = np.where(outward, 0, gradient)
    size = np.sqrt(np.maximum(diagonal * cost[:, None], 1e-300))
    is_stationary = ((np.abs(gradient) / size).max(axis=1) < _STATIONARY) | (
        cost < 1e-20
    )
    normal = np.where(outward[:, :, None] | outward[:, None, :], 0, normal)
    damped = np.where(outward, 1, diagonal * (1 + damping[:, None]) + 1e-14)
    normal[:, range(4), range(4)] = damped
    step = np.linalg.solve(normal, -gradient[..., None])[..., 0]
    return step.astype(float, copy=False), is_stationary
