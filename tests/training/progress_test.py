"""Images, core-hours and the estimated end, counted by a clock that the test holds."""
# SPDX-License-Identifier: Apache-2.0

import math

import pytest

from vit_scaling.training.progress import Progress, duration_text


class Clock:
    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


def progress(clock, **changes):
    parts = {"batch_size": 32, "total_steps": 100, "cores": 8, "replicas": 4}
    return Progress(**{**parts, **changes}, clock=clock)


def test_speed_and_end_follow_from_the_last_loop():
    clock = Clock()
    counted = progress(clock)
    counted.begin()
    clock.seconds += 5.0
    counted.end(10)
    report = counted.report(10)
    assert report["images_seen"] == 320
    assert report["images_per_second"] == pytest.approx(64)
    assert report["images_per_second_per_replica"] == pytest.approx(16)
    assert report["core_hours"] == pytest.approx(5 * 8 / 3600)
    assert report["eta_seconds"] == pytest.approx(90 * 32 / 64)


def test_the_first_estimate_of_the_end_leaves_compilation_out():
    clock = Clock()
    counted = progress(clock)
    counted.begin()
    clock.seconds += 60.0 + 10 * 0.5  # A minute of compilation, then ten steps.
    counted.end(10)
    assert counted.report(10, 0.5)["eta_seconds"] == pytest.approx(90 * 0.5)
    counted.begin()
    clock.seconds += 10 * 0.7  # One slow step among quick ones counts from here on.
    counted.end(10)
    assert counted.report(20, 0.5)["eta_seconds"] == pytest.approx(80 * 0.7)


def test_speed_per_core_and_share_of_the_peak_follow_from_it():
    clock = Clock()
    counted = progress(clock, flops_per_image=6e9, peak_flops_per_core=1e12)
    counted.begin()
    clock.seconds += 5.0
    counted.end(10)
    report = counted.report(10)
    assert report["images_per_second_per_core"] == pytest.approx(64 / 8)
    assert report["share_of_peak"] == pytest.approx(64 * 6e9 / (8 * 1e12))
    assert "share_of_peak" not in progress(clock, flops_per_image=6e9).report(0)


def test_time_between_loops_does_not_count():
    clock = Clock()
    counted = progress(clock)
    for _ in range(2):
        counted.begin()
        clock.seconds += 3.0
        counted.end(1)
        clock.seconds += 1000.0  # Evaluation.
    assert counted.report(2)["core_hours"] == pytest.approx(6 * 8 / 3600)


def test_counting_continues_over_a_restart_with_other_cores():
    clock = Clock()
    before = progress(clock)
    before.begin()
    clock.seconds += 7.0
    before.end(20)
    after = progress(clock, cores=2)
    after.restore(before.state())
    after.begin()
    clock.seconds += 10.0
    after.end(5)
    report = after.report(25)
    assert report["images_seen"] == 25 * 32
    assert report["core_hours"] == pytest.approx((7 * 8 + 10 * 2) / 3600)


def test_end_is_unknown_before_the_first_loop_and_needs_a_begin():
    counted = progress(Clock())
    assert math.isnan(counted.report(0)["eta_seconds"])
    with pytest.raises(RuntimeError, match="without `begin`"):
        counted.end(1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (42.4, "42s"),
        (59.6, "1m00s"),
        (185, "3m05s"),
        (2 * 3600 + 7 * 60 + 9, "2h07m"),
        (5 * 86400 + 3 * 3600, "5d03h"),
        (float("inf"), "?"),
        (float("nan"), "?"),
    ],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration_text(seconds) == text
