"""Schedules against golden values and an oracle, in Python and in graphs."""
# SPDX-License-Identifier: Apache-2.0

import keras
import pytest
import tensorflow as tf

from tests.oracles import schedules as oracle
from vit_scaling.optimization.base_schedule import Schedule
from vit_scaling.optimization.learning_rate_schedules import (
    Constant,
    Cosine,
    Linear,
    ReciprocalSqrt,
    Trapezoid,
)

PAPER = ReciprocalSqrt(8e-4, total_steps=1_000_000)

CASES = {
    "rsqrt": (
        ReciprocalSqrt(
            1e-3,
            total_steps=500,
            warmup_steps=50,
            cooldown_steps=100,
            timescale_steps=70,
            shift_steps=30,
        ),
        lambda s: oracle.rsqrt(
            s, base=1e-3, total=500, warmup=50, cooldown=100, timescale=70, shift=30
        ),
    ),
    "constant": (
        Constant(1e-3, total_steps=500, warmup_steps=50, cooldown_steps=100),
        lambda s: oracle.constant(s, base=1e-3, total=500, warmup=50, cooldown=100),
    ),
    "constant_after_a_fall": (
        Constant(
            1e-3,
            total_steps=500,
            warmup_steps=50,
            cooldown_steps=100,
            plateau=0.1,
            fall_steps=200,
        ),
        lambda s: oracle.constant(
            s, base=1e-3, total=500, warmup=50, cooldown=100, plateau=0.1, fall=200
        ),
    ),
    "trapezoid": (
        Trapezoid(1e-3, total_steps=500, warmup_steps=50, cooldown_steps=100),
        lambda s: oracle.constant(s, base=1e-3, total=500, warmup=50, cooldown=100),
    ),
    "linear": (
        Linear(1e-3, total_steps=500, warmup_steps=50, end_learning_rate=1e-5),
        lambda s: oracle.linear(s, base=1e-3, total=500, warmup=50, end=1e-5),
    ),
    "linear_with_cooldown": (
        Linear(1e-3, total_steps=500, cooldown_steps=100),
        lambda s: oracle.linear(s, base=1e-3, total=500, warmup=0, cooldown=100),
    ),
    "cosine": (
        Cosine(0.03, total_steps=20_000, warmup_steps=500),
        lambda s: oracle.cosine(s, base=0.03, total=20_000, warmup=500),
    ),
}
CASE = pytest.mark.parametrize(
    ("schedule", "expected"), list(CASES.values()), ids=list(CASES)
)


def steps_of(schedule):
    total = schedule.total_steps
    marks = {0, 1, schedule.warmup_steps, total - schedule.cooldown_steps, total}
    near = {step + shift for step in marks for shift in (-1, 0, 1)}
    return sorted(
        s for s in near | set(range(0, total, total // 37)) if 0 <= s <= total
    )


@pytest.mark.parametrize(("step", "rate"), oracle.GOLDEN_RSQRT)
def test_the_papers_schedule_has_the_golden_rates(step, rate):
    # Seven printed digits, hence the wider tolerance for values that are not round.
    assert PAPER.at(step) == pytest.approx(rate, rel=1e-7, abs=1e-18)
    in_graph = float(tf.function(PAPER)(tf.constant(step, tf.int64)))
    assert in_graph == pytest.approx(rate, rel=1e-6, abs=1e-18)


def test_the_last_executed_step_still_learns():
    last = 8e-4 / (1 + 989_999 / 10_000) ** 0.5 / 50_000
    assert PAPER.at(999_999) == pytest.approx(last, rel=1e-7)
    in_graph = float(tf.function(PAPER)(tf.constant(999_999, tf.int64)))
    assert in_graph == pytest.approx(last, rel=1e-6)


@CASE
def test_python_equals_the_oracle(schedule, expected):
    for step in steps_of(schedule):
        assert schedule.at(step) == pytest.approx(expected(step), rel=1e-12, abs=1e-18)


@CASE
@pytest.mark.parametrize("jit_compile", [False, True])
def test_graph_equals_the_oracle(schedule, expected, jit_compile):
    rates = tf.function(
        lambda steps: tf.map_fn(schedule, steps, fn_output_signature=tf.float32),
        jit_compile=jit_compile,
    )
    steps = steps_of(schedule)
    for step, rate in zip(steps, rates(tf.constant(steps, tf.int64)), strict=True):
        # Next to the end cosine's rate is the square of a tiny angle: 1e-6 of it is
        # still 1e-6 relative, as the angle counts whole steps.
        assert float(rate) == pytest.approx(expected(step), rel=1e-6, abs=1e-18)


@CASE
def test_a_schedule_survives_serialisation(schedule, expected):
    del expected
    config = keras.saving.serialize_keras_object(schedule)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    assert again.at(123) == schedule.at(123)


def test_the_rate_after_the_end_is_zero_not_negative():
    assert PAPER.at(1_000_010) == 0.0


def test_lengths_come_in_epochs_examples_and_percent():
    given = ReciprocalSqrt(
        1e-3,
        total_steps=("epochs", 90),
        warmup_steps=("examples", 10_000 * 1024),
        cooldown_steps=("percent", 10),
        timescale_steps=("epochs", 8),
    )
    assert not given.resolved
    schedule = given.in_steps(batch_size=1024, train_examples=1_281_167)
    total = round(90 * 1_281_167 / 1024)
    assert schedule.total_steps == total
    assert schedule.warmup_steps == 10_000
    assert schedule.cooldown_steps == round(total / 10)
    assert schedule.timescale_steps == round(8 * 1_281_167 / 1024)
    assert schedule.shift_steps == 0
    assert schedule.in_steps(batch_size=7).get_config() == schedule.get_config()


def test_percent_of_a_known_total_need_nothing_more():
    schedule = Cosine(0.03, total_steps=20_000, warmup_steps=("percent", 2.5))
    assert schedule.warmup_steps == 500
    assert schedule.at(500) == pytest.approx(0.03)


def test_an_unresolved_schedule_says_what_to_do():
    schedule = Linear(1e-3, total_steps=("epochs", 5))
    with pytest.raises(ValueError, match=r"in_steps\(batch_size"):
        schedule.at(0)
    with pytest.raises(ValueError, match=r"in_steps\(batch_size"):
        schedule(tf.constant(0))
    with pytest.raises(ValueError, match="train_examples"):
        schedule.in_steps(batch_size=8)


@pytest.mark.parametrize("parent", [PAPER, CASES["constant_after_a_fall"][0]])
def test_a_branch_follows_its_parent_then_cools_to_zero(parent):
    start, length = parent.total_steps // 2, parent.total_steps // 25
    branch = parent.branch(start, length)
    assert branch.total_steps == start + length
    for step in (0, 1, parent.warmup_steps, start // 2, start):
        assert branch.at(step) == parent.at(step)
    half = start + length // 2
    assert branch.at(half) == pytest.approx(parent.at(half) / 2, rel=1e-3)
    assert branch.at(start + length) == 0


def test_a_branch_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="depends on the total"):
        Linear(1e-3, total_steps=100).branch(50, 10)
    with pytest.raises(ValueError, match="warm-up"):
        PAPER.branch(5_000, 50_000)
    with pytest.raises(ValueError, match="cooldown"):
        PAPER.branch(960_000, 50_000)
    with pytest.raises(ValueError, match="at least 1 step"):
        PAPER.branch(500_000, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(0.0, total_steps=10), "base_learning_rate"),
        (lambda: Linear(True, total_steps=10), "must be a number"),
        (lambda: Linear(1e-3, total_steps=0), "between 1 and"),
        (lambda: Linear(1e-3, total_steps=2**25), "between 1 and"),
        (
            lambda: Linear(1e-3, total_steps=10, end_learning_rate=1),
            "end_learning_rate",
        ),
        (
            lambda: Trapezoid(1, total_steps=9, warmup_steps=0, cooldown_steps=3),
            "slopes",
        ),
        (lambda: Linear(1e-3, total_steps=("percent", 10)), "percent are taken of"),
        (lambda: Linear(1e-3, total_steps=("days", 10)), "unit of steps"),
        (lambda: Linear(1e-3, total_steps=9, warmup_steps=-1), "at least 0"),
        (lambda: Linear(1e-3, total_steps=9, warmup_steps=1.5), "whole number"),
        (lambda: Linear(1e-3, total_steps=9, warmup_steps="1"), "pair such as"),
        (
            lambda: Linear(1e-3, total_steps=9, warmup_steps=("percent", 101)),
            "0 to 100",
        ),
        (
            lambda: ReciprocalSqrt(
                1, total_steps=9, warmup_steps=1, cooldown_steps=1, timescale_steps=0
            ),
            "timescale_steps",
        ),
    ],
)
def test_bad_values_are_refused_at_construction(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_phases_that_exceed_the_run_are_shortened_in_proportion(caplog):
    schedule = ReciprocalSqrt(1e-3, total_steps=600)  # 10,000 and 50,000 steps.
    assert (schedule.warmup_steps, schedule.cooldown_steps) == (100, 500)
    assert "warmup_steps=100, cooldown_steps=500" in caplog.text
    assert schedule.at(100) == pytest.approx(1e-3) and schedule.at(600) == 0
    fall = Constant(1e-3, total_steps=10, fall_steps=20)
    assert fall.fall_steps == 10


def test_phases_are_shortened_once_their_lengths_are_known():
    schedule = Linear(1e-3, total_steps=("examples", 800), warmup_steps=101)
    assert schedule.in_steps(batch_size=8).warmup_steps == 100


def test_the_frame_asks_for_a_decay():
    with pytest.raises(NotImplementedError, match="decay"):
        Schedule(1e-3, total_steps=3).at(0)
