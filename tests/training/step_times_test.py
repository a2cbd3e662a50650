"""Seconds of steps and of waiting, by a clock that the test moves."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import tensorflow as tf

from tests.training import small
from vit_scaling.training import step_times
from vit_scaling.training.step_times import StepTimes


class Loop:
    """A loop in the graph; its waits for a batch and its steps have set lengths."""

    def __init__(self):
        self.now = tf.Variable(1000.0, dtype=tf.float64)
        self.number = tf.Variable(0)
        self.waits = tf.Variable(tf.zeros([step_times.CAPACITY + 50], tf.float64))
        self.works = tf.Variable(tf.zeros([step_times.CAPACITY + 50], tf.float64))
        self.times = StepTimes(clock=self.now.read_value)
        self.run = tf.function(self._run, autograph=False)

    def __next__(self):
        wait = self.waits[self.number]
        return {"images": self.now.assign_add(wait, read_value=True)}

    def _run(self, steps):
        def body(step):
            batch = self.times.next_batch(self)
            with tf.control_dependencies([batch["images"]]):
                done = self.now.assign_add(self.works[self.number], read_value=True)
            with tf.control_dependencies([done]):
                self.number.assign_add(1)
            return step + 1

        tf.while_loop(lambda step: step < steps, body, [tf.constant(0)])

    def __call__(self, waits, works):
        count = len(waits)
        self.number.assign(0)
        self.waits[:count].assign(waits)
        self.works[:count].assign(works)
        self.times.begin()
        self.run(tf.constant(count))
        return self.times.report(float(self.now.numpy()))


def test_percentiles_and_share_are_those_of_the_steps():
    waits, works = [1.0, 0.0, 2.0, 0.5], [3.0, 4.0, 1.0, 6.0]
    report = Loop()(waits, works)
    seconds = np.add(waits, works)
    assert report["data_wait_share"] == pytest.approx(3.5 / 17.5)
    for percent in (50, 90, 99):
        expected = np.percentile(seconds, percent)
        assert report[f"step_seconds_p{percent}"] == pytest.approx(expected)


def test_each_loop_is_reported_alone():
    loop = Loop()
    loop([9.0] * 5, [1.0] * 5)
    report = loop([0.0, 0.0], [2.0, 4.0])
    assert report["step_seconds_p50"] == pytest.approx(3.0)
    assert report["data_wait_share"] == 0.0


def test_of_a_long_loop_the_last_steps_count():
    steps = step_times.CAPACITY + 40
    report = Loop()(np.r_[[100.0] * 40, [1.0] * step_times.CAPACITY], [1.0] * steps)
    assert report["data_wait_share"] == pytest.approx(0.5)
    assert report["step_seconds_p99"] == pytest.approx(2.0)


def test_nothing_is_reported_before_a_step():
    assert StepTimes().report(0.0) == {}


def test_advice_comes_once_after_two_loops_that_wait():
    loop = Loop()
    assert loop.times.advice() is None
    loop([9.0], [1.0])  # The first one fills the pipeline.
    assert loop.times.advice() is None
    loop([0.1], [1.0])
    assert loop.times.advice() is None
    loop([1.0], [1.0]), loop([1.0], [3.0])
    line = loop.times.advice()
    assert "25% of their time waiting for data" in line and "\n" not in line
    loop([1.0], [1.0])
    assert loop.times.advice() is None


def test_every_strategy_but_tpu_is_timed():
    assert isinstance(StepTimes.for_strategy(small.mirrored(2)), StepTimes)
    tpu = tf.distribute.TPUStrategy.__new__(tf.distribute.TPUStrategy)
    assert StepTimes.for_strategy(tpu) is None
