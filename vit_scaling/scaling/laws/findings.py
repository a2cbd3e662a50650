"""Read a study: sample efficiency, bottlenecks and saturation (§2.1 to 2.3)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vit_scaling.naming import unknown_name_message
from vit_scaling.scaling.laws.power_law import PowerLaw
from vit_scaling.scaling.laws.runs import Floats, Run, Runs

# What counts as "no gain", as a share of the error. The paper's Ti/16 gains 0.4 % of
# its error from 100 times the data, L/16 33 %.
NEGLIGIBLE_GAIN = 0.03


def group_by_series(runs: Runs) -> dict[tuple[str, float | None], list[Run]]:
    """Return the runs of each (model, data size), shortest first."""
    groups: dict[tuple[str, float | None], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.model, run.data_size), []).append(run)
    for rows in groups.values():
        rows.sort(key=lambda run: (run.images_seen or run.compute, run.compute))
    return groups


def images_needed(runs: Runs, model: str, error: float) -> float | None:
    """Return the images `model` must see to reach `error`, on its best data size.

    Between two durations, log images is linear in log error. None if no run of the
    model gets there; the shortest run's images if it is already below.

    Raises:
        ValueError: No run has this model, or its images seen are not known.
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
                "efficiency needs an images_seen column (--images_seen_column)."
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
            # A line to an error of 0 has no logarithm: what the run saw is enough.
            if previous is None or run.error in (0, previous.error):
                return images
            share = np.log(previous.error / error) / np.log(previous.error / run.error)
            before = float(previous.images_seen or 0)
            return float(before * (images / before) ** share)
        previous = run
    return None


@dataclasses.dataclass(frozen=True)
class SampleEfficiency:
    """Images that each model needs for one error; None where it never gets there.

    Attributes:
        error: The error to reach.
        images: Images per model.
        at_most: Models whose shortest run is already below: they may need fewer.
    """

    error: float
    images: dict[str, float | None]
    at_most: frozenset[str]

    def ratio(self, model: str, reference: str) -> float | None:
        """Return how many times the images of `reference` the model needs.

        It is a lower bound if `reference` is in `at_most`, and None if `model` is.
        """
        mine, other = self.images[model], self.images[reference]
        return mine / other if mine and other and model not in self.at_most else None


def sample_efficiency(
    runs: Runs, *, errors: Sequence[float] | None = None
) -> list[SampleEfficiency]:
    """Return the images needed for equal error, for several errors (§2.3, Figure 3).

    Args:
        runs: Runs of one metric with `images_seen`.
        errors: Errors to reach; None takes the best error of each model.
    """
    if errors is None:
        best = {model: 1.0 for model in runs.models}
        for run in runs:
            best[run.model] = min(best[run.model], run.error)
        errors = sorted(set(best.values()), reverse=True)
    return [_efficiency(runs, error) for error in errors]


def _efficiency(runs: Runs, error: float) -> SampleEfficiency:
    images = {model: images_needed(runs, model, error) for model in runs.models}
    shortest: dict[str, float] = {}
    for run in runs:
        seen = float(run.images_seen or 0)
        shortest[run.model] = min(seen, shortest.get(run.model, seen))
    below = {model for model, needed in images.items() if needed == shortest[model]}
    return SampleEfficiency(error, images, frozenset(below))


@dataclasses.dataclass(frozen=True)
class Bottleneck:
    """What holds one model back, with the evidence.

    Attributes:
        model: Its name.
        best_error: Lowest error of all its runs.
        gain_from_data: Share of the error that the largest data takes off, against the
            smallest, at the longest duration that they share; None with one size.
        gain_from_duration: Share of the error that the last increase of the duration
            takes off per factor of 2, on the longest series; None with one duration.
        gain_from_largest_data: As `gain_from_data`, against the second largest.
        worsens_from: The smallest data size on which longer training raised the error
            by more than 1 % of it, if any: the sign of data running out.
        limited_by: "model", "data", "duration", "model or data" (one data size only),
            or "" (nothing to compare).
        evidence: The above in a sentence.
    """

    model: str
    best_error: float
    gain_from_data: float | None
    gain_from_duration: float | None
    gain_from_largest_data: float | None
    worsens_from: float | None
    limited_by: str
    evidence: str


def find_bottlenecks(runs: Runs) -> list[Bottleneck]:
    """Return what holds each model back, cheapest model first (§2.1, observations 2-3).

    A model is limited by itself if neither more data nor more duration takes
    `NEGLIGIBLE_GAIN` of its error off; by data if more data helps more than a doubled
    duration does, or if its longest runs get worse on the smaller data; else by its
    duration.
    """
    return [_bottleneck(runs, model) for model in runs.models]


def _bottleneck(runs: Runs, model: str) -> Bottleneck:
    groups = {
        data: rows
        for (name, data), rows in group_by_series(runs).items()
        if name == model
    }
    sizes = sorted(size for size in groups if size is not None)
    at_longest = _longest_shared(groups)
    shared = sorted(at_longest, key=_order)
    data = last = None
    said = []
    if len(shared) > 1:
        few, second, most = shared[0], shared[-2], shared[-1]
        data = _gain(at_longest[few], at_longest[most])
        last = _gain(at_longest[second], at_longest[most])
        said.append(
            f"{_more_data(few, most)} takes {data:.1%} of the error off, "
            f"{_more_data(second, most)} {last:.1%}"
        )
    duration = _duration_gain(_longest_series(groups))
    if duration is not None:
        said.append(f"a doubled duration takes {duration:.1%} off")
    worse = next((size for size in sizes if _worsens(groups[size])), None)
    if worse is not None:
        said.append(f"on {worse:.3g} images longer training makes it worse")
    return Bottleneck(
        model,
        min(run.error for rows in groups.values() for run in rows),
        data,
        duration,
        last,
        worse,
        _limited_by(data, duration, worse),
        ("; ".join(said) or "one data size and one duration: nothing to compare") + ".",
    )


def _order(data_size: float | None) -> float:
    """Return what data sizes are sorted by: None is the whole set, so the largest."""
    return math.inf if data_size is None else data_size


def largest_data(runs: Runs) -> float | None:
    """Return the largest data size; None, the whole set, is larger than any number."""
    return max((run.data_size for run in runs), key=_order)


def _gain(before: float, after: float) -> float:
    """Return the share of an error that was taken off; of no error, none can be."""
    return 1 - after / before if before else 0.0


def _more_data(few: float | None, most: float | None) -> str:
    if few is None or most is None:
        return f"all the data in place of {few:.3g} images"
    return f"{most / few:.3g} times the data"


def _longest_shared(
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
    """Return the series that goes on longest, on the largest data if several do."""
    return max(
        groups.items(),
        key=lambda item: (
            item[1][-1].images_seen or item[1][-1].compute,
            _order(item[0]),
        ),
    )[1]


def _limited_by(data: float | None, duration: float | None, worse: float | None) -> str:
    if data is None and duration is None:
        return ""
    known_data, known_duration = data or 0.0, duration or 0.0
    if worse is not None and known_data >= NEGLIGIBLE_GAIN:
        return "data"
    if max(known_data, known_duration) < NEGLIGIBLE_GAIN:
        return "model" if data is not None else "model or data"
    return "data" if known_data > known_duration else "duration"


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
    """Where the law is a power law, and where it is not any more.

    Attributes:
        straight_from: Compute where the local slope reaches half of its greatest.
        straight_to: Compute where it falls to half again.
        steepest: The greatest local slope, -dlog E/dlog C.
        floor_share: Share of the error at the largest compute that is the floor c.
        upper_end_seen: Whether the runs reach beyond `straight_to`.
        lower_end_seen: Whether the runs begin below `straight_from`.
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
