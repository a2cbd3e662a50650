"""The paper's findings follow from its data."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import numpy as np
import pytest

from tests.scaling.example_runs import LAW, grid_of_runs
from vit_scaling.scaling.laws.findings import (
    find_bottlenecks,
    find_saturation,
    images_needed,
    largest_data,
    sample_efficiency,
)
from vit_scaling.scaling.laws.paper_results import paper_runs
from vit_scaling.scaling.laws.power_law import PowerLaw
from vit_scaling.scaling.laws.runs import Run, Runs


def on_3b(metric):
    return paper_runs(metric).where(
        lambda run: run.data_size == 3e9 and run.model in ("Ti/16", "L/16")
    )


def test_ti_16_needs_many_times_the_images_of_l_16():
    """Paper, §2.3: near 100 times for 10-shot, about 20 times for fine-tuning."""
    (few,) = sample_efficiency(on_3b("imagenet_10shot"), errors=[0.4998])
    assert 50 < few.ratio("Ti/16", "L/16") < 120
    (tuned,) = sample_efficiency(on_3b("imagenet_finetune"), errors=[0.2453])
    assert 15 < tuned.ratio("Ti/16", "L/16") < 40


def test_images_needed_interpolate_on_log_axes():
    rows = [Run("m", 1.0, 0.8, images_seen=1e6), Run("m", 9.0, 0.2, images_seen=1e8)]
    assert images_needed(Runs(tuple(rows)), "m", 0.4) == pytest.approx(1e7)
    assert images_needed(Runs(tuple(rows)), "m", 0.9) == 1e6
    assert images_needed(Runs(tuple(rows)), "m", 0.1) is None


def test_images_are_bounded_if_the_shortest_run_reaches_the_error():
    row = sample_efficiency(grid_of_runs(), errors=[0.95])[0]
    assert row.at_most == {"Ti/16", "B/32", "L/16"}
    assert row.ratio("Ti/16", "L/16") is None


def test_bottlenecks_agree_with_the_paper():
    """§2.1: small models gain little from data and compute, large ones more.

    Of equal factors, a doubled model gains most up to L/16.
    """
    found = {row.model: row for row in find_bottlenecks(paper_runs())}
    assert found["Ti/16"].limited_by == found["s/28"].limited_by == "model"
    assert found["L/16"].limited_by == "model"
    data = {name: row.doublings.get("data") for name, row in found.items()}
    assert data["L/16"].interval[0] > 0 > data["Ti/16"].interval[0]
    assert found["L/16"].worsens_from == 3e7
    assert found["L/16"].gain_from_data > 0.4 > 0.05 > found["Ti/16"].gain_from_data
    # From 1B to 3B only the largest gains.
    assert found["L/16"].gain_from_largest_data > 0.02
    assert found["B/16"].gain_from_largest_data < 0.01
    # Only its duration varies: there is nothing to compare it with.
    assert found["g/14"].limited_by == "undecided"
    assert "data not comparable" in found["g/14"].evidence
    assert found["G/14"].limited_by == ""


def test_all_the_data_is_the_largest_size():
    """A table that leaves data_size empty for the whole set reads as one that does not.

    In a table with numbers, an empty cell is the whole set.
    """
    known = grid_of_runs()
    whole = Runs(
        tuple(
            dataclasses.replace(run, data_size=None) if run.data_size == 1e8 else run
            for run in known
        )
    )
    assert largest_data(whole) is None and largest_data(known) == 1e8
    for blank, full in zip(
        find_bottlenecks(whole), find_bottlenecks(known), strict=True
    ):
        assert blank.gain_from_data == full.gain_from_data
        assert blank.gain_from_largest_data == full.gain_from_largest_data
        assert blank.gain_from_duration == full.gain_from_duration
        assert blank.limited_by == full.limited_by
    assert "all the data in place of 1e+06 images takes" in blank.evidence


def test_saturation_is_where_the_slope_halves():
    found = find_saturation(LAW, np.array([0.01, 1e9]))
    assert LAW.slope_at(found.straight_from) == pytest.approx(
        found.steepest / 2, rel=0.02
    )
    assert LAW.slope_at(found.straight_to) == pytest.approx(
        found.steepest / 2, rel=0.02
    )
    assert found.lower_end_seen and found.upper_end_seen
    assert found.floor_share == pytest.approx(LAW.c / LAW.error_at(1e9))


def test_a_plain_power_law_saturates_nowhere():
    found = find_saturation(PowerLaw(1.0, 0.3, 0.0, 0.0), np.array([1.0, 1e3]))
    assert (found.straight_from, found.straight_to) == (0.0, float("inf"))
    assert not found.lower_end_seen and not found.upper_end_seen


def test_missing_facts_are_named():
    rows = [
        dataclasses.replace(run, images_seen=None)
        for run in grid_of_runs()
        if run.data_size == 1e8 and run.images_seen == 1e8
    ]
    blind = Runs(tuple(rows))
    with pytest.raises(ValueError, match="images_seen column"):
        images_needed(blind, "L/16", 0.3)
    with pytest.raises(ValueError, match="Did you mean 'L/16'"):
        images_needed(grid_of_runs(), "L/15", 0.3)


def test_images_have_an_interval_of_the_errors_within_the_noise():
    """On E = images^-0.5, 10 % of log error is 20 % of log images."""
    rows = [
        Run("m", float(images), float(images**-0.5), images_seen=float(images))
        for images in np.geomspace(10, 1000, 9)
    ]
    (found,) = sample_efficiency(Runs(tuple(rows)), errors=[0.1], noise=0.1 / 1.96)
    low, high = found.intervals["m"]
    assert found.images["m"] == pytest.approx(100, rel=1e-6)
    assert (np.log(100 / low), np.log(high / 100)) == pytest.approx((0.2, 0.2))
    (alone,) = sample_efficiency(Runs(tuple(rows)), errors=[0.1])
    assert alone.intervals == {}
