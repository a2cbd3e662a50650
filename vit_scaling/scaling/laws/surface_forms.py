"""Formulas of parameters N and examples D: Chinchilla's, Kaplan's, both, repetition.

Every form is written as the formula of its log loss. Its derivatives may be given too;
otherwise they are central differences.
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from vit_scaling.scaling.laws.runs import Floats

# (coefficients, log N, log D, log unique D) to the log loss. All four may be arrays
# with leading axes; logarithms are of N and D over their geometric means.
LogLaw = Callable[[Floats, Floats, Floats, Floats], Floats]


@dataclasses.dataclass(frozen=True)
class SurfaceForm:
    """One formula of L(N, D).

    Attributes:
        formula: The law as text.
        names: Its coefficients, as the user sees them.
        log_law: The logarithm of the law, of internal coefficients.
        starts: Internal coefficients to start from, for centred log N, log D and loss.
        lower: Lower bounds of the internal coefficients.
        upper: Upper bounds.
        jacobian: Derivatives of `log_law` by the coefficients, shape (coefficients,
            points); None: central differences.
        published: (internal coefficients, centre of log N, of log D) to the values of
            `names`.
        source: The publication.
    """

    formula: str
    names: tuple[str, ...]
    log_law: LogLaw
    starts: Callable[[Floats, Floats, Floats], Iterator[Floats]]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    published: Callable[[Floats, float, float], Floats]
    source: str
    jacobian: LogLaw | None = None


def _log_sum(*terms: Floats) -> Floats:
    """Return log(Σ exp(term))."""
    return np.logaddexp.reduce(np.broadcast_arrays(*terms), axis=0)


def _columns(coefficients: Floats) -> list[Floats]:
    return [coefficients[..., k, None] for k in range(coefficients.shape[-1])]


def _chinchilla(c: Floats, n: Floats, d: Floats, unique: Floats) -> Floats:
    e, a, b, alpha, beta = _columns(c)
    return _log_sum(e, a - alpha * n, b - beta * d)


def _chinchilla_jacobian(c: Floats, n: Floats, d: Floats, unique: Floats) -> Floats:
    total = _chinchilla(c, n, d, unique)
    by_e = np.exp(c[0] - total)
    by_a, by_b = np.exp(c[1] - c[3] * n - total), np.exp(c[2] - c[4] * d - total)
    return np.stack([by_e, by_a, by_b, -n * by_a, -d * by_b])


def _with_repetition(c: Floats, n: Floats, d: Floats, unique: Floats) -> Floats:
    """Muennighoff et al. 2023, equations 5 and 6, and Appendix A for U_N."""
    e, a, b, alpha, beta, log_rd, log_rn = _columns(c)
    # Parameters that are optimal for the unique data alone, from α A/N^α = β B/D^β.
    best_n = (np.log(alpha / beta) + a - b + beta * unique) / alpha
    used_n = np.where(best_n < n, best_n, n)
    data = unique + _log_effective(d - unique, log_rd)
    size = used_n + _log_effective(n - used_n, log_rn)
    return _log_sum(e, a - alpha * size, b - beta * data)


def _log_effective(log_ratio: Floats, log_r: Floats) -> Floats:
    """Return log(1 + R*(1 - exp(-(ratio - 1)/R*))), at most log ratio."""
    r = np.exp(log_r)
    repeats = np.expm1(np.clip(log_ratio, 0, _HIGH))  # Beyond it, only overflow.
    return np.log(1 + r * (1 - np.exp(-repeats / r)))


def _kaplan(c: Floats, n: Floats, d: Floats, unique: Floats) -> Floats:
    log_n_c, log_d_c, alpha_n, alpha_d = _columns(c)
    return alpha_d * _log_sum(alpha_n / alpha_d * (log_n_c - n), log_d_c - d)


def _kaplan_jacobian(c: Floats, n: Floats, d: Floats, unique: Floats) -> Floats:
    log_n_c, log_d_c, alpha_n, alpha_d = c
    by_size, by_data = alpha_n / alpha_d * (log_n_c - n), log_d_c - d
    total = _log_sum(by_size, by_data)
    of_size, of_data = np.exp(by_size - total), np.exp(by_data - total)
    return np.stack([alpha_n * of_size, alpha_d * of_data, of_size * (log_n_c - n),
                     total - of_size * by_size])  # fmt: skip


def _joint(c: Floats, n: Floats, d: Floats, unique: Floats) -> Floats:
    e, a, b, alpha, beta, gamma = _columns(c)
    return _log_sum(e, gamma * _log_sum(a - alpha * n, b - beta * d))


def _joint_jacobian(c: Floats, n: Floats, d: Floats, unique: Floats) -> Floats:
    e, a, b, alpha, beta, gamma = c
    by_size, by_data = a - alpha * n, b - beta * d
    inner, total = _log_sum(by_size, by_data), _joint(c, n, d, unique)
    reducible = np.exp(gamma * inner - total)
    of_size = gamma * reducible * np.exp(by_size - inner)
    of_data = gamma * reducible * np.exp(by_data - inner)
    return np.stack([np.exp(e - total), of_size, of_data, -n * of_size, -d * of_data,
                     inner * reducible])  # fmt: skip


_EXPONENTS = (0.15, 0.4, 1.0)
_LOW, _HIGH = -40.0, 40.0  # Of logarithms.


def _chinchilla_starts(n: Floats, d: Floats, loss: Floats) -> Iterator[Floats]:
    """For fixed exponents the law is linear: solve it by non-negative least squares."""
    from scipy.optimize import nnls

    for alpha, beta in itertools.product(_EXPONENTS, _EXPONENTS):
        terms = np.stack([np.ones_like(n), np.exp(-alpha * n), np.exp(-beta * d)], 1)
        weights, _ = nnls(terms / loss[:, None], np.ones_like(loss))
        logs = np.log(np.maximum(weights, 1e-3 * loss.min()))
        yield np.array([*logs, alpha, beta])


def _repetition_starts(n: Floats, d: Floats, loss: Floats) -> Iterator[Floats]:
    for start in _chinchilla_starts(n, d, loss):
        yield np.array([*start, np.log(10.0), np.log(5.0)])


def _kaplan_starts(n: Floats, d: Floats, loss: Floats) -> Iterator[Floats]:
    level = float(np.log(loss).mean())
    for alpha_n, alpha_d in itertools.product((0.05, 0.2, 0.6), (0.05, 0.2, 0.6)):
        yield np.array([level / alpha_n, level / alpha_d, alpha_n, alpha_d])


def _joint_starts(n: Floats, d: Floats, loss: Floats) -> Iterator[Floats]:
    middle, lowest = float(np.median(np.log(loss))), float(np.log(loss).min())
    for slope, floor in itertools.product((0.2, 0.5, 1.0), (-2.3, -0.35)):
        yield np.array([lowest + floor, middle - 1, middle - 1, slope, slope, 1.0])


def _chinchilla_values(c: Floats, n: float, d: float) -> Floats:
    e, a, b, alpha, beta = np.moveaxis(c[..., :5], -1, 0)
    return np.stack(
        [np.exp(e), np.exp(a + alpha * n), np.exp(b + beta * d), alpha, beta], axis=-1
    )


def _repetition_values(c: Floats, n: float, d: float) -> Floats:
    return np.concatenate([_chinchilla_values(c, n, d), np.exp(c[..., 5:])], axis=-1)


def _kaplan_values(c: Floats, n: float, d: float) -> Floats:
    return np.concatenate([np.exp(c[..., :2] + [n, d]), c[..., 2:]], axis=-1)


def _joint_values(c: Floats, n: float, d: float) -> Floats:
    return np.concatenate([_chinchilla_values(c, n, d), c[..., 5:]], axis=-1)


# fmt: off
SURFACES: dict[str, SurfaceForm] = {
    "chinchilla": SurfaceForm(
        "L = E + A/N^alpha + B/D^beta", ("E", "A", "B", "alpha", "beta"),
        _chinchilla, _chinchilla_starts,
        (_LOW, _LOW, _LOW, 1e-3, 1e-3), (_HIGH, _HIGH, _HIGH, 5, 5),
        _chinchilla_values, "Hoffmann et al. 2022, approach 3", _chinchilla_jacobian),
    "repetition": SurfaceForm(
        "L = E + A/N'^alpha + B/D'^beta, D' = U (1 + R_D (1 - exp((1 - D/U)/R_D)))",
        ("E", "A", "B", "alpha", "beta", "R_D", "R_N"),
        _with_repetition, _repetition_starts,
        (_LOW, _LOW, _LOW, 1e-3, 1e-3, -5, -5), (_HIGH, _HIGH, _HIGH, 5, 5, 10, 10),
        _repetition_values, "Muennighoff et al. 2023"),
    "kaplan": SurfaceForm(
        "L = ((N_c/N)^(alpha_N/alpha_D) + D_c/D)^alpha_D",
        ("N_c", "D_c", "alpha_N", "alpha_D"),
        _kaplan, _kaplan_starts,
        (-200, -200, 1e-3, 1e-3), (200, 200, 5, 5),
        _kaplan_values, "Kaplan et al. 2020, equation 1.5", _kaplan_jacobian),
    "joint": SurfaceForm(
        "L = E + (A/N^alpha + B/D^beta)^gamma",
        ("E", "A", "B", "alpha", "beta", "gamma"), _joint, _joint_starts,
        (-20, _LOW, _LOW, 2e-3, 2e-3, 0.1), (_HIGH, 20, 20, 12, 12, 8),
        _joint_values, "Chinchilla's with gamma = 1, Kaplan's with E = 0",
        _joint_jacobian),
}
# fmt: on
