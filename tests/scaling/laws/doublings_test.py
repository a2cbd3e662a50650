"""Equal factors of data, duration and model are compared, with intervals."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import numpy as np
import pytest

from vit_scaling.scaling.laws.doublings import (
    Gain,
    doubling_gains,
    limiting_factor,
)
from vit_scaling.scaling.laws.findings import find_bottlenecks
from vit_scaling.scaling.laws.runs import Run, Runs


def planted_runs(data, duration, model, *, noise=0.0, seed=0):
    """Return runs whose error falls by these fractions per doubling."""
    generator = np.random.default_rng(seed)
    rows = []
    for doublings, name in enumerate(("small", "large")):
        for size in (1e6, 1e8):
            for images in (1e8, 2e8, 4e8):
                error = (
                    0.8
                    * (1 - data) ** np.log2(size / 1e6)
                    * (1 - duration) ** np.log2(images / 1e8)
                    * (1 - model) ** doublings
                    * np.exp(noise * generator.standard_normal())
                )
                rows.append(
                    Run(
                        name,
                        images * 2**doublings,
                        float(error),
                        data_size=size,
                        images_seen=images,
                    )
                )
    return Runs(tuple(rows))


def small(runs):
    return find_bottlenecks(runs)[0]


def test_equal_factors_are_compared_and_not_a_hundredfold_with_a_doubling():
    """A hundredfold of data gains 6.5 %, a doubled duration 4 %, doubled data 1 %."""
    found = small(planted_runs(data=0.01, duration=0.04, model=0.02, noise=1e-4))
    assert found.gain_from_data > found.gain_from_duration
    assert found.limited_by == "duration"
    assert {
        name: round(gain.estimate, 3) for name, gain in found.doublings.items()
    } == {**{"data": 0.01, "duration": 0.04, "model": 0.02}}


@pytest.mark.parametrize("factor", ["data", "duration", "model"])
def test_the_factor_with_the_largest_gain_per_doubling_limits(factor):
    gains = {"data": 0.01, "duration": 0.01, "model": 0.01, factor: 0.05}
    assert small(planted_runs(**gains, noise=1e-3)).limited_by == factor


def test_overlapping_intervals_are_undecided():
    noisy = planted_runs(data=0.02, duration=0.03, model=0.03, noise=0.02)
    assert small(noisy).limited_by == "undecided"
    assert limiting_factor({"data": Gain(0.1, None), "model": Gain(0.01, None)}) == (
        "undecided"
    )
    # Nothing that helps limits nothing.
    worse = {"data": Gain(-0.02, (-0.03, -0.01)), "model": Gain(-0.2, (-0.3, -0.1))}
    assert limiting_factor(worse) == "undecided"


def test_intervals_hold_the_truth_in_95_percent_of_studies():
    truth = {"data": 0.02, "duration": 0.05, "model": 0.1}
    held = []
    for seed in range(400):
        gains = doubling_gains(planted_runs(**truth, noise=0.01, seed=seed), "small")
        held += [
            gains[name].interval[0] < truth[name] < gains[name].interval[1]
            for name in truth
        ]
    assert 0.93 < np.mean(held) < 0.97


def test_the_whole_set_has_no_known_size_to_double():
    runs = planted_runs(data=0.03, duration=0.04, model=0.01, noise=1e-3)
    whole = Runs(
        tuple(
            dataclasses.replace(run, data_size=None) if run.data_size == 1e8 else run
            for run in runs
        )
    )
    assert set(doubling_gains(whole, "small")) == {"duration", "model"}
    assert set(doubling_gains(whole, "large")) == {"duration"}
    assert "data not comparable" in small(whole).evidence


def test_known_noise_gives_intervals_that_hold_the_truth():
    """Also where the runs are too few to measure their scatter themselves."""
    truth = {"data": 0.02, "duration": 0.05, "model": 0.1}
    held = []
    for seed in range(200):
        runs = planted_runs(**truth, noise=0.01, seed=seed)
        gains = doubling_gains(runs, "small", noise=0.01)
        held += [
            gains[name].interval[0] < truth[name] < gains[name].interval[1]
            for name in truth
        ]
    assert 0.93 < np.mean(held) < 0.99
