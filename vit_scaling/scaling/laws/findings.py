"""Findings of a study: sample efficiency, bottlenecks, saturation (§2.1 to 2.3)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vit_scaling.naming import unknown_name_message
from vit_scaling.scaling.laws.doublings import (
    Gain,
    describe,
    doubling_gains,
    limiting_factor,
)
from vit_scaling.scaling.laws.power_law import PowerLaw
from vit_scaling.scaling.laws.runs import Floats, Run, Runs

NOTHING_TO_COMPARE = "one data size and one duration: nothing to compare."


def group_by_series(runs: Runs) -> dict[tuple[str, float | None], list[Run]]:
    """Return the runs of each (model, data size), shortest first."""
    groups: dict[tuple[str, float | None], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.model, run.data_size), []).append(run)
    for rows in groups.values():
        rows.sort(key=lambda run: (run.images_seen or run.compute, run.compute))
    return groups


def images_needed(runs: Runs, model: str, error: float) -> float | None:
    """Return the images that `model` must see to reach `error`, on its best data size.

    Between two durations, log images is linear in log error. The result is None if no
    run of the model reaches the error, and the shortest run's images if that does.

    Raises:
        ValueError: No run has this model, or `images_seen` is unknown.
    """
    if model not in runs.models:
        raise ValueError(
            unknown_name_message("model of these runs", model, runs.models)
        )
    best: float | None = None
    for (name, _), rows in group_by_series(runs).items():
        if name != model:
            continue
        if any(run.images_seen is None for run in rows):
            raise ValueError(
                f"Runs of {model} do not say how many images they saw: sample "
                "efficiency needs an images_seen column (--examples_column)."
            )
        needed = _crossing(rows, error)
        if needed is not None:
            best = needed if best is None else min(best, needed)
    return best


def _crossing(rows: Sequence[Run], error: float) -> float | None:
    previous: Run | None = None
    for run in rows:
        if run.error <= error:
            images = float(run.images_seen or 0)
            # An error of 0 has no logarithm: take the run's own images.
            if previous is None or run.error in (0, previous.error):
                return images
            way = np.log(previous.error / error) / np.log(previous.error / run.error)
            before = float(previous.images_seen or 0)
            return float(before * (images / before) ** way)
        previous = run
    return None


@dataclasses.dataclass(frozen=True)
class SampleEfficiency:
    """Images that each model needs to reach one error; None if it never does.

    Attributes:
        error: The error to reach.
        images: Images per model.
        at_most: Models whose shortest run already reaches it: they may need fewer.
        intervals: 95 % intervals of the images, for errors within the runs' noise of
            this one; an end is None where no run reaches that error. Empty if the
            noise is not known.
    """

    error: float
    images: dict[str, float | None]
    at_most: frozenset[str]
    intervals: dict[str, tuple[float | None, float | None]] = dataclasses.field(
        default_factory=dict
    )

    def ratio(self, model: str, reference: str) -> float | None:
        """Return the model's images divided by those of `reference`.

        It is a lower bound if `reference` is in `at_most`, and None if `model` is.
        """
        mine, other = self.images[model], self.images[reference]
        return mine / other if mine and other and model not in self.at_most else None


def sample_efficiency(
    runs: Runs, *, errors: Sequence[float] | None = None, noise: float | None = None
) -> list[SampleEfficiency]:
    """Return the images needed for equal error, for several errors (§2.3, Figure 3).

    Args:
        runs: Runs of one metric with `images_seen`.
        errors: Errors to reach; None takes the best error of each model.
        noise: Standard deviation of log error, for intervals; None: not known.
    """
    if errors is None:
        best = dict.fromkeys(runs.models, math.inf)
        for run in runs:
            best[run.model] = min(best[run.model], run.error)
        errors = sorted(set(best.values()), reverse=True)
    return [_efficiency(runs, error, noise) for error in errors]


def _efficiency(runs: Runs, error: float, noise: float | None) -> SampleEfficiency:
    images = {model: images_needed(runs, model, error) for model in runs.models}
    shortest: dict[str, float] = {}
    for run in runs:
        seen = float(run.images_seen or 0)
        shortest[run.model] = min(seen, shortest.get(run.model, seen))
    below = {model for model, needed in images.items() if needed == shortest[model]}
    intervals = {}
    if noise is not None:
        factor = math.exp(1.96 * noise)
        intervals = {
            model: (
                images_needed(runs, model, error * factor),
                images_needed(runs, model, error / factor),
            )
            for model in runs.models
        }
    return SampleEfficiency(error, images, frozenset(below), intervals)


@dataclasses.dataclass(frozen=True)
class Bottleneck:
    """The factor that limits a model, with the evidence.

    Attributes:
        model: Its name.
        best_error: Lowest error of all its runs.
        gain_from_data: Relative decrease of the error from the smallest data to the
            largest, at the longest duration that they share; None with one size.
        gain_from_duration: Relative decrease per doubled duration at the end of the
            longest series; None with one duration.
        gain_from_largest_data: As `gain_from_data`, from the second largest data.
        worsens_from: The smallest data size on which longer training raised the error
            by more than 1 % of it, if any: the sign of data running out.
        doublings: Known gains of a doubling of "data", "duration" and "model".
        limited_by: "data", "duration" or "model": the one of which a doubling gains
            most; "undecided" where the 95 % intervals overlap or only one factor is
            known, or "" (nothing to compare).
        evidence: The gains in a sentence.
    """

    model: str
    best_error: float
    gain_from_data: float | None
    gain_from_duration: float | None
    gain_from_largest_data: float | None
    worsens_from: float | None
    doublings: dict[str, Gain]
    limited_by: str
    evidence: str


def find_bottlenecks(runs: Runs, *, noise: float | None = None) -> list[Bottleneck]:
    """Return what limits each model, cheapest model first (§2.1, observations 2-3).

    Equal factors are compared: doubled data, a doubled duration and a doubled model
    (compute per image). See `doubling_gains`, also for `noise`, and `limiting_factor`.
    """
    return [_bottleneck(runs, model, noise) for model in runs.models]


def _bottleneck(runs: Runs, model: str, noise: float | None) -> Bottleneck:
    by_data = {
        data: rows
        for (name, data), rows in group_by_series(runs).items()
        if name == model
    }
    errors = _errors_at_longest_shared_duration(by_data)
    sizes = sorted(errors, key=_data_order)
    evidence = []
    data = last = None
    if len(sizes) > 1:
        smallest, second, largest = sizes[0], sizes[-2], sizes[-1]
        data = _gain(errors[smallest], errors[largest])
        last = _gain(errors[second], errors[largest])
        evidence.append(
            f"{_describe_more_data(smallest, largest)} takes {data:.1%} of the error "
            f"off, {_describe_more_data(second, largest)} {last:.1%}"
        )
    duration = _duration_gain(_longest_series(by_data))
    if duration is not None:
        evidence.append(f"a doubled duration takes {duration:.1%} off")
    known = sorted(size for size in by_data if size is not None)
    worsens_from = next((size for size in known if _worsens(by_data[size])), None)
    if worsens_from is not None:
        evidence.append(f"on {worsens_from:.3g} images longer training makes it worse")
    gains = doubling_gains(runs, model, noise=noise)
    if gains:
        evidence.append(describe(gains))
    return Bottleneck(
        model,
        min(run.error for rows in by_data.values() for run in rows),
        gain_from_data=data,
        gain_from_duration=duration,
        gain_from_largest_data=last,
        worsens_from=worsens_from,
        doublings=gains,
        limited_by=limiting_factor(gains),
        evidence="; ".join(evidence) + "." if evidence else NOTHING_TO_COMPARE,
    )


def _data_order(data_size: float | None) -> float:
    """Return a sort key of data sizes: None, the whole set, is the largest."""
    return math.inf if data_size is None else data_size


def largest_data(runs: Runs) -> float | None:
    """Return the largest data size; None, the whole set, is larger than any number."""
    return max((run.data_size for run in runs), key=_data_order)


def _gain(before: float, after: float) -> float:
    """Return the relative decrease of an error; 0 if it was 0 before."""
    return 1 - after / before if before else 0.0


def _describe_more_data(small: float | None, large: float | None) -> str:
    if small is None or large is None:
        return f"all the data in place of {small:.3g} images"
    return f"{large / small:.3g} times the data"


def _errors_at_longest_shared_duration(
    groups: dict[float | None, list[Run]],
) -> dict[float | None, float]:
    """Return {data size: error} at the longest duration that two data sizes share."""
    by_duration: dict[float, dict[float | None, float]] = {}
    for size, rows in groups.items():
        for run in rows:
            if run.images_seen is not None:
                by_duration.setdefault(run.images_seen, {})[size] = run.error
    shared = [images for images, errors in by_duration.items() if len(errors) > 1]
    return by_duration[max(shared)] if shared else {}


def _longest_series(groups: dict[float | None, list[Run]]) -> list[Run]:
    """Return the longest series; of several, the one on the largest data."""
    return max(
        groups.items(),
        key=lambda item: (
            item[1][-1].images_seen or item[1][-1].compute,
            _data_order(item[0]),
        ),
    )[1]


def _duration_gain(rows: Sequence[Run]) -> float | None:
    if len(rows) < 2:
        return None
    first, second = rows[-2:]
    factor = (second.images_seen or second.compute) / (
        first.images_seen or first.compute
    )
    if factor <= 1:
        return None
    if first.error == 0:
        return 0.0
    return float(1 - (second.error / first.error) ** (1 / np.log2(factor)))


def _worsens(rows: Sequence[Run]) -> bool:
    best = min(run.error for run in rows)
    return len(rows) > 1 and rows[-1].error > 1.01 * best


@dataclasses.dataclass(frozen=True)
class Saturation:
    """The range in which the law is a straight line on log axes.

    Attributes:
        straight_from: Compute above which the local slope exceeds half its maximum.
        straight_to: Compute above which the slope is below half its maximum again.
        steepest: Maximum of the local slope, -dlog E/dlog C.
        floor_share: Fraction of the error at the largest compute that is the floor c.
        upper_end_seen: Whether the runs reach beyond `straight_to`.
        lower_end_seen: Whether the cheapest run is below `straight_from`.
    """

    straight_from: float
    straight_to: float
    steepest: float
    floor_share: float
    upper_end_seen: bool
    lower_end_seen: bool


def find_saturation(law: PowerLaw, compute: Floats) -> Saturation:
    """Return where `law` saturates, and whether runs at `compute` show it (§2.2)."""
    low, high = float(np.min(compute)), float(np.max(compute))
    grid = np.geomspace(low * 1e-6, high * 1e9, 4000)
    slope = law.slope_at(grid)
    inside = grid[slope >= slope.max() / 2]
    start, end = float(inside[0]), float(inside[-1])
    return Saturation(
        straight_from=start if start > grid[0] else 0.0,
        straight_to=end if end < grid[-1] else float("inf"),
        steepest=float(slope.max()),
        floor_share=float(law.c / law.error_at(high)),
        upper_end_seen=bool(high > end),
        lower_end_seen=bool(low < start and start > grid[0]),
    )
