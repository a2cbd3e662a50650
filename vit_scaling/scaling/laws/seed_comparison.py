"""Mean and interval over the seeds of each kind of run: variants side by side (§3)."""
# SPDX-License-Identifier: Apache-2.0

import collections
import dataclasses

import numpy as np
from scipy import stats

from vit_scaling.scaling.laws.runs import Run, Runs

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ by their seed alone.

    Attributes:
        model: The model's name, with the variant's behind it.
        data_size: Different training images; None is all.
        images_seen: Batch size times steps.
        metric: What is measured.
        accuracies: One for each seed, in [0, 1].
    """

    model: str
    data_size: float | None
    images_seen: float | None
    metric: str
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.accuracies))

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean by Student's t; None for a single seed."""
        number = len(self.accuracies)
        if number < 2:
            return None
        error = float(np.std(self.accuracies, ddof=1)) / number**0.5
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, number - 1)) * error
        return self.mean - half, self.mean + half


@dataclasses.dataclass(frozen=True)
class Difference:
    """One group less another, seed by seed: what seeds have in common cancels.

    Attributes:
        model: The group that is compared.
        reference: The one that it is compared with.
        mean: Mean difference of accuracy.
        interval: Its 95 % interval by Student's t over the pairs.
    """

    model: str
    reference: str
    mean: float
    interval: tuple[float, float] | None


def group_runs(runs: Runs) -> list[Group]:
    """Return the table's groups in the order of their first runs."""
    found: dict[tuple, list[float]] = collections.defaultdict(list)
    for run in sorted(runs.rows, key=lambda run: _seed(run)):
        found[_kind(run)].append(1.0 - run.error)
    order = dict.fromkeys(_kind(run) for run in runs.rows)
    return [Group(*kind, tuple(found[kind])) for kind in order]


def compute_differences(runs: Runs, reference: str) -> dict[Group, Difference]:
    """Return each group's difference to the reference's group of the same kind.

    Only seeds that both have count.

    Args:
        runs: The table.
        reference: The model's name to compare with, variant included.

    Raises:
        ValueError: No run is of `reference`.
    """
    by_seed: dict[tuple, dict[str, float]] = collections.defaultdict(dict)
    for run in runs.rows:
        by_seed[_kind(run)][run.seed] = 1.0 - run.error
    names = list(dict.fromkeys(run.model for run in runs.rows))
    if reference not in names:
        raise ValueError(
            f"`reference` must be one of {', '.join(names)}; received {reference!r}."
        )
    result = {}
    for group in group_runs(runs):
        rest = (group.data_size, group.images_seen, group.metric)
        ours, theirs = by_seed[(group.model, *rest)], by_seed[(reference, *rest)]
        both = sorted(set(ours) & set(theirs))
        if group.model == reference or not both:
            continue
        apart = tuple(ours[seed] - theirs[seed] for seed in both)
        paired = Group(group.model, *rest, apart)
        result[group] = Difference(group.model, reference, paired.mean, paired.interval)
    return result


def _kind(run: Run) -> tuple[str, float | None, float | None, str]:
    return run.model, run.data_size, run.images_seen, run.metric


def _seed(run: Run) -> tuple[int, str]:
    return len(run.seed), run.seed
