"""What doubled data, a doubled duration and a doubled model each gain, compared."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from vit_scaling.scaling.laws.runs import Run, Runs

FACTORS = ("data", "duration", "model")
_LEVEL = 0.95
_DURATIONS = 3  # The longest ones: the gain of a doubling falls along a series.
_MIN_MODEL_FACTOR = 1.5  # Models of nearly equal cost tell nothing about a doubling.


@dataclasses.dataclass(frozen=True)
class Gain:
    """Relative decrease of the error by one doubling.

    Attributes:
        estimate: Such as 0.05 for five per cent.
        interval: Its 95 % interval; None if the runs are too few for one.
    """

    estimate: float
    interval: tuple[float, float] | None


def doubling_gains(
    runs: Runs, model: str, *, noise: float | None = None
) -> dict[str, Gain]:
    """Return what a doubling of each factor gains; unknown gains are left out.

    Log error is taken as linear in log data, log duration and log compute per image
    over the model's longest runs on its two largest data sizes and the same runs of the
    next larger model. Intervals are those of least squares: by Student's t, or, where
    the noise is known, by the larger of it and the residuals' scatter.

    Args:
        runs: Runs of one metric, averaged over seeds.
        model: A model of the runs.
        noise: Standard deviation of log error, from `estimate_law`; None: not known.
    """
    own = _end_of_series([run for run in runs if run.model == model])
    larger, ratio = _next_larger_model(runs, own)
    rows = [*own, *larger]
    doublings = np.array(
        [
            [math.log2(run.data_size or 1) for run in rows],
            [math.log2(run.images_seen or run.compute) for run in rows],
            [math.log2(ratio) * (run.model != model) for run in rows],
        ]
    ).T
    varied = [k for k in range(len(FACTORS)) if len(set(doublings[:, k])) > 1]
    design = np.column_stack([np.ones(len(rows)), doublings[:, varied]])
    if not varied or np.linalg.matrix_rank(design) < design.shape[1]:
        return {}
    from scipy import special  # Slow to import.

    log_error = np.log2([run.error for run in rows])
    slopes = np.linalg.lstsq(design, log_error, rcond=None)[0]
    freedom = len(rows) - design.shape[1]
    scale = np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    squares = float(np.sum((log_error - design @ slopes) ** 2))
    scatter = np.sqrt(squares / freedom) if freedom else 0.0
    if noise is not None:  # Of the natural logarithm; this one is to base 2.
        quantile = float(special.ndtri((1 + _LEVEL) / 2))
        margin = quantile * max(noise / math.log(2), scatter) * scale
    elif freedom:
        margin = special.stdtrit(freedom, (1 + _LEVEL) / 2) * scatter * scale
    else:
        margin = np.full(len(slopes), np.inf)
    return {
        FACTORS[k]: _gain(slopes[place], margin[place])
        for place, k in enumerate(varied, start=1)
    }


def _end_of_series(rows: list[Run]) -> list[Run]:
    """Return the longest runs on the two largest data sizes that share durations.

    An empty data size is the whole set. Its factor to the others is unknown, so it is
    not compared with them.
    """
    rows = [run for run in rows if run.error > 0]
    if any(run.data_size is None for run in rows):
        rows = [run for run in rows if run.data_size is None]
    sizes_by_length: dict[float, set[float]] = {}
    for run in rows:
        sizes = sizes_by_length.setdefault(run.images_seen or run.compute, set())
        sizes.add(run.data_size or 0.0)
    lengths = sorted(sizes_by_length)
    shared = [length for length in lengths if len(sizes_by_length[length]) > 1]
    kept = (shared or lengths)[-_DURATIONS:]
    largest = sorted({size for length in kept for size in sizes_by_length[length]})[-2:]
    return [
        run
        for run in rows
        if (run.images_seen or run.compute) in kept and (run.data_size or 0) in largest
    ]


def _next_larger_model(runs: Runs, own: list[Run]) -> tuple[list[Run], float]:
    """Return the next larger model's runs that match `own`, and its compute factor."""
    compute: dict[tuple[float | None, float | None], float] = {
        (run.data_size, run.images_seen): run.compute
        for run in own
        if run.images_seen is not None
    }
    matches: dict[str, list[Run]] = {}
    for run in runs:
        if run.error > 0 and (run.data_size, run.images_seen) in compute:
            matches.setdefault(run.model, []).append(run)
    ratios = {
        name: float(
            np.median([r.compute / compute[r.data_size, r.images_seen] for r in rows])
        )
        for name, rows in matches.items()
    }
    larger = {name: r for name, r in ratios.items() if r >= _MIN_MODEL_FACTOR}
    if not larger:
        return [], 1.0
    name = min(larger, key=lambda name: larger[name])
    return matches[name], larger[name]


def _gain(slope: float, margin: float) -> Gain:
    interval = None
    if math.isfinite(margin):
        interval = (1 - 2 ** float(slope + margin), 1 - 2 ** float(slope - margin))
    return Gain(1 - 2 ** float(slope), interval)


def limiting_factor(gains: Mapping[str, Gain]) -> str:
    """Return the factor of which a doubling gains most, or "undecided".

    Its interval must be above 0 and above those of the other known factors, of which
    there must be one. Without any known gain the result is "".
    """
    if not gains:
        return ""
    best = max(gains, key=lambda name: gains[name].estimate)
    ends = {name: gain.interval for name, gain in gains.items()}
    others = [ends[name] for name in gains if name != best]
    low = ends[best][0] if ends[best] else -math.inf  # type: ignore[index]
    highest = max((end[1] if end else math.inf for end in others), default=math.inf)
    return best if low > max(0.0, highest) else "undecided"


def describe(gains: Mapping[str, Gain]) -> str:
    """Return the gains in words, and the factors that the runs do not vary."""
    words = []
    for name in FACTORS:
        if name not in gains:
            words.append(f"{name} not comparable")
            continue
        gain = gains[name]
        ends = gain.interval
        spread = f"{ends[0]:.1%} to {ends[1]:.1%}" if ends else "no interval"
        words.append(f"{name} {gain.estimate:.1%} ({spread})")
    return f"doubled, each takes off the error: {', '.join(words)}"
