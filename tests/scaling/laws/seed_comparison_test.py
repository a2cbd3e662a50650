"""Variants over seeds: means, Student's intervals and paired differences."""
# SPDX-License-Identifier: Apache-2.0

import statistics

import pytest

from vit_scaling.scaling.laws.runs import Run, Runs
from vit_scaling.scaling.laws.seed_comparison import compute_differences, group_runs

# Quantiles of Student's t from a printed table: 97.5 % at 1 and at 2 degrees.
T_1, T_2 = 12.706, 4.303


def table():
    errors = {"plain": (0.40, 0.42, 0.47), "other": (0.38, 0.41, 0.45)}
    return Runs(
        tuple(
            Run(model, compute=1.0, error=error, images_seen=100, seed=str(seed))
            for model, values in errors.items()
            for seed, error in enumerate(values)
        )
    )


def test_groups_have_mean_and_student_interval_over_seeds():
    plain, other = group_runs(table())
    assert (plain.model, other.model) == ("plain", "other")
    values = [0.60, 0.58, 0.53]
    assert plain.accuracies == pytest.approx(values)
    half = T_2 * statistics.stdev(values) / 3**0.5
    assert plain.mean == pytest.approx(statistics.mean(values))
    assert plain.interval == pytest.approx(
        (plain.mean - half, plain.mean + half), rel=1e-3
    )


def test_differences_go_seed_by_seed():
    ((group, difference),) = compute_differences(table(), "plain").items()
    assert group.model == difference.model == "other"
    values = [0.02, 0.01, 0.02]
    half = T_2 * statistics.stdev(values) / 3**0.5
    assert difference.mean == pytest.approx(statistics.mean(values))
    assert difference.interval == pytest.approx(
        (difference.mean - half, difference.mean + half), rel=1e-3
    )
    # Narrower than either group's own: what seeds have in common cancels.
    width = group.interval[1] - group.interval[0]
    assert difference.interval[1] - difference.interval[0] < width / 3


def test_only_seeds_that_both_have_count():
    rows = [run for run in table().rows if (run.model, run.seed) != ("plain", "1")]
    (difference,) = compute_differences(Runs(tuple(rows)), "plain").values()
    half = T_1 * statistics.stdev([0.02, 0.02]) / 2**0.5
    assert difference.mean == pytest.approx(0.02)
    assert difference.interval[1] - difference.mean == pytest.approx(half, abs=1e-9)


def test_a_single_seed_has_no_interval():
    (only,) = group_runs(Runs((Run("plain", compute=1.0, error=0.5),)))
    assert only.mean == 0.5 and only.interval is None


def test_durations_and_metrics_are_separate_groups():
    rows = [
        Run("a", compute=c, error=0.5, images_seen=n, metric=metric)
        for c, n in ((1.0, 10), (2.0, 20))
        for metric in ("upstream", "10-shot")
    ]
    assert len(group_runs(Runs(tuple(rows)))) == 4


def test_an_unknown_reference_is_rejected_with_the_known_ones():
    with pytest.raises(ValueError, match=r"plain, other.*'adam'"):
        compute_differences(table(), "adam")
