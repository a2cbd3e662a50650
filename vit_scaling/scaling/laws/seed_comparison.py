"""Compare variants over seeds: means, intervals and paired differences (§3)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import numpy as np
from scipy import special  # scipy.stats takes half a second to import.

from vit_scaling.naming import check_known
from vit_scaling.scaling.laws.runs import Runs

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed.

    Attributes:
        model: Name of the model and variant.
        data_size: Number of different training images; None: all.
        images_seen: Batch size × steps.
        metric: Name of the accuracy.
        accuracies: One per seed, in [0, 1].
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
        count = len(self.accuracies)
        if count < 2:
            return None
        error = float(np.std(self.accuracies, ddof=1)) / count**0.5
        half = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * error
        return self.mean - half, self.mean + half


@dataclasses.dataclass(frozen=True)
class Difference:
    """Difference of two groups' accuracies, paired by seed to cancel common noise.

    Attributes:
        model: Model of the compared group.
        reference: Model of the group that is subtracted.
        mean: Mean difference of accuracy.
        interval: Its 95 % interval by Student's t over the pairs.
    """

    model: str
    reference: str
    mean: float
    interval: tuple[float, float] | None


def group_runs(runs: Runs) -> list[Group]:
    """Return the groups in the order of their first runs."""
    return [
        Group(*key, tuple(by_seed[seed] for seed in sorted(by_seed, key=_seed_order)))
        for key, by_seed in _accuracies(runs).items()
    ]


def compute_differences(runs: Runs, reference: str) -> dict[Group, Difference]:
    """Return each group's difference to the reference model's group.

    Only seeds that both groups have count.

    Args:
        runs: The table.
        reference: Name of the model and variant to compare with.

    Raises:
        ValueError: No run is of `reference`.
    """
    check_known("reference", reference, dict.fromkeys(run.model for run in runs))
    accuracies = _accuracies(runs)
    result = {}
    for group in group_runs(runs):
        key = (group.data_size, group.images_seen, group.metric)
        ours = accuracies[(group.model, *key)]
        theirs = accuracies.get((reference, *key), {})
        common = sorted(set(ours) & set(theirs))
        if group.model != reference and common:
            pairs = Group(group.model, *key, tuple(ours[s] - theirs[s] for s in common))
            result[group] = Difference(
                group.model, reference, pairs.mean, pairs.interval
            )
    return result


def _accuracies(
    runs: Runs,
) -> dict[tuple[str, float | None, float | None, str], dict[str, float]]:
    """Return {(model, data size, images seen, metric): {seed: accuracy}}."""
    groups: dict[tuple[str, float | None, float | None, str], dict[str, float]] = {}
    for run in runs:
        key = (run.model, run.data_size, run.images_seen, run.metric)
        groups.setdefault(key, {})[run.seed] = 1.0 - run.error
    return groups


def _seed_order(seed: str) -> tuple[int, str]:
    return len(seed), seed
