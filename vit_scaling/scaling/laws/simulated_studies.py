"""Studies simulated from known surfaces of error, to count how often intervals hold."""
# SPDX-License-Identifier: Apache-2.0

import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from vit_scaling.scaling.laws.law_estimates import LawOptions, estimate_law
from vit_scaling.scaling.laws.power_law import PowerLaw
from vit_scaling.scaling.laws.runs import Floats, Run, Runs

LAW = PowerLaw(a=0.63, b=0.32, c=0.12, d=0.5)
_DECADES = 3  # Of model size and of duration, each from 1.


def law_with_a_valley(size: Floats, duration: Floats) -> Floats:
    """Return the paper's law times exp(0.03 u²), u = log N/N_opt and N_opt = √C."""
    ratio = (np.log(size) - np.log(duration)) / 2
    return LAW.error_at(size * duration) * np.exp(0.03 * ratio**2)


def chinchilla_with_shifts(size: Floats, duration: Floats) -> Floats:
    """Return 0.1 + 0.3 (N + 0.3)^-0.4 + 0.4 (D + 0.5)^-0.35."""
    return np.asarray(
        0.1 + 0.3 * (size + 0.3) ** -0.4 + 0.4 * (duration + 0.5) ** -0.35
    )


def kaplan(size: Floats, duration: Floats) -> Floats:
    """Return 0.6 (N^(-0.4/0.35) + 1/D)^0.35."""
    return np.asarray(0.6 * (size ** (-0.4 / 0.35) + 1 / duration) ** 0.35)


Surface = Callable[[Floats, Floats], Floats]
TRUTHS: dict[str, Surface] = {
    "law": law_with_a_valley,
    "chinchilla": chinchilla_with_shifts,
    "kaplan": kaplan,
}


def envelope(surface: Surface, compute: npt.ArrayLike) -> Floats:
    """Return the lowest error over all sizes at each compute, shape (budgets,)."""
    budgets = np.atleast_1d(np.asarray(compute, float))[:, None]
    size = np.exp(np.linspace(-7, 18, 6000))
    return np.asarray(surface(size, budgets / size).min(axis=1))


def simulate_runs(
    surface: Surface,
    count: int,
    noise: float,
    generator: np.random.Generator,
    *,
    repeated: int = 0,
) -> Runs:
    """Return runs of sizes and durations that are uniform on a log scale.

    Args:
        surface: Error of (size, duration).
        count: Number of runs.
        noise: Standard deviation of log error.
        generator: Source of randomness.
        repeated: Number of runs that are repeated with another seed.
    """
    size, duration = 10 ** generator.uniform(0, _DECADES, (2, count))
    rows = []
    for seed, repetitions in enumerate((count, repeated)):
        n, d = size[:repetitions], duration[:repetitions]
        scatter = np.exp(noise * generator.standard_normal(repetitions))
        error = np.minimum(surface(n, d) * scatter, 1.0)
        pairs = zip((n * d).tolist(), error.tolist(), strict=True)
        rows += [
            Run(f"m{k}", *values, images_seen=float(d[k]), seed=str(seed))
            for k, values in enumerate(pairs)
        ]
    return Runs(tuple(rows))


class StudyOutcome(NamedTuple):
    """Whether the intervals of one study hold the truth, and how wide they are.

    Attributes:
        converged: Whether there were intervals.
        ahead: Whether the law's interval at 10 times the largest compute holds.
        within: The same at the geometric mean of compute.
        floor: Whether the interval of c holds; None where the truth has another form.
        ahead_width: Width of log error at 10 times the largest compute.
        within_width: The same at the geometric mean.
        ahead_bias: Log error of the fitted law over the truth, at 10 times.
    """

    converged: bool
    ahead: bool = False
    within: bool = False
    floor: bool | None = None
    ahead_width: float = float("nan")
    within_width: float = float("nan")
    ahead_bias: float = float("nan")


def simulate_study(
    truth: str,
    count: int,
    noise: float,
    study: int,
    *,
    method: str = "auto",
    resamples: int = 200,
    repeated: int = 0,
) -> StudyOutcome:
    """Simulate one study, fit the law and compare its 95 % intervals with the truth.

    Args:
        truth: A key of `TRUTHS`.
        count: Number of runs.
        noise: Standard deviation of log error.
        study: Number of the study, which seeds it.
        method: See `estimate_law`.
        resamples: Number of resamples.
        repeated: See `simulate_runs`.
    """
    cell = zlib.crc32(f"{truth} {count} {noise:g}".encode())
    generator = np.random.default_rng([cell, study])
    runs = simulate_runs(TRUTHS[truth], count, noise, generator, repeated=repeated)
    try:
        options = LawOptions(method=method, resamples=resamples, seed=study)
        law = estimate_law(runs, options)
    except (ValueError, RuntimeError):
        return StudyOutcome(False)
    if law.bootstrap is None:
        return StudyOutcome(False)
    middle = float(np.exp(np.log(runs.compute).mean()))
    at = np.array([10 * runs.compute.max(), middle])
    right = envelope(TRUTHS[truth], at)
    low, high = law.bootstrap.band(at)
    ahead, within = (low <= right) & (right <= high)
    floor = None
    if truth == "law":
        ends = law.bootstrap.intervals()["c"]
        floor = bool(ends[0] <= LAW.c <= ends[1])
    widths = np.log(high / low)
    bias = float(np.log(law.fit.law.error_at(at[0]) / right[0]))
    return StudyOutcome(
        True, bool(ahead), bool(within), floor, float(widths[0]), float(widths[1]), bias
    )


def binomial_interval(
    held: int, count: int, level: float = 0.99
) -> tuple[float, float]:
    """Return the interval of a rate by Clopper and Pearson."""
    ends = stats.binomtest(held, count).proportion_ci(level, method="exact")
    return float(ends.low), float(ends.high)
