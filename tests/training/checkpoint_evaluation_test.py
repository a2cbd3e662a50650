"""Another process's checkpoints: met as they appear, damaged ones left out."""
# SPDX-License-Identifier: Apache-2.0

import os

import pytest

from vit_scaling.training.checkpoint_evaluation import evaluate_as_they_appear
from vit_scaling.training.checkpoint_files import CorruptCheckpointError


class Clock:
    """Time that passes only by sleeping, and what happens meanwhile."""

    def __init__(self, events):
        self.now, self.events = 0.0, dict(events)

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        for time in [time for time in self.events if time <= self.now]:
            self.events.pop(time)()


@pytest.fixture
def clock():
    return Clock({})


def follow(path, events, **options):
    clock = Clock(events)
    steps = []

    def evaluate(step):
        steps.append(step)
        return {"step": step}

    evaluate_as_they_appear(
        evaluate, path, clock=clock, sleep=clock.sleep, poll_seconds=1.0, **options
    )
    return steps, clock.now


def folder(path, *steps):
    def make():
        for step in steps:
            made = path / "checkpoints" / f"step_{step:09d}"
            made.mkdir(parents=True)
            (made / "manifest.json").write_text("{}")

    return make


def test_checkpoints_are_met_as_they_appear_until_the_last(tmp_path):
    events = {3: folder(tmp_path, 10), 6: folder(tmp_path, 20), 9: folder(tmp_path, 30)}
    steps, now = follow(tmp_path, events, timeout_seconds=100, last_step=30)
    assert steps == [10, 20, 30] and now == 9


def test_a_checkpoint_whose_manifest_is_still_to_come_is_not_met(tmp_path):
    (tmp_path / "checkpoints" / "step_000000020").mkdir(parents=True)
    last = tmp_path / "checkpoints" / "step_000000020" / "manifest.json"
    events = {3: folder(tmp_path, 10), 6: lambda: last.write_text("{}")}
    assert follow(tmp_path, events, timeout_seconds=9, last_step=20)[0] == [10, 20]


def test_only_the_newest_of_several_is_met(tmp_path):
    folder(tmp_path, 10, 20)()
    events = {5: folder(tmp_path, 30, 40)}
    assert follow(tmp_path, events, timeout_seconds=9, last_step=40)[0] == [20, 40]


def test_waiting_ends_when_none_comes_in_time_counted_from_the_last(tmp_path):
    events = {8: folder(tmp_path, 10), 16: folder(tmp_path, 20)}
    steps, now = follow(tmp_path, events, timeout_seconds=10, last_step=99)
    assert steps == [10, 20] and 26 <= now <= 28


def test_a_step_that_is_written_again_is_met_again(tmp_path):
    manifest = tmp_path / "checkpoints" / "step_000000020" / "manifest.json"

    def write(time):
        def make():
            manifest.parent.mkdir(parents=True, exist_ok=True)
            manifest.write_text("{}")
            os.utime(manifest, (time, time))

        return make

    events = {3: write(100), 6: write(200), 9: folder(tmp_path, 30)}
    assert follow(tmp_path, events, timeout_seconds=9, last_step=30)[0] == [20, 20, 30]


def evaluate_all(evaluate, path, clock):
    """Evaluate until step 20 by a clock that does not cost time."""
    return evaluate_as_they_appear(
        evaluate,
        path,
        timeout_seconds=60.0,
        last_step=20,
        clock=clock,
        sleep=clock.sleep,
    )


@pytest.mark.parametrize("error", [CorruptCheckpointError, FileNotFoundError])
def test_a_checkpoint_that_cannot_be_read_is_named_and_left_out(
    tmp_path, caplog, error, clock
):
    folder(tmp_path, 10)()

    def evaluate(step):
        if step == 10:
            folder(tmp_path, 20)()
            raise error("step 10 is damaged")
        return {"step": step}

    found = evaluate_all(evaluate, tmp_path, clock)
    assert found == {"step": 20}
    assert "Step 10 is not evaluated: step 10 is damaged" in caplog.text


def test_the_last_checkpoint_is_tried_again_when_it_cannot_be_read(tmp_path, clock):
    folder(tmp_path, 20)()
    failing = [CorruptCheckpointError("a file is still to come")] * 2

    def evaluate(step):
        if failing:
            raise failing.pop()
        return {"step": step}

    assert evaluate_all(evaluate, tmp_path, clock) == {"step": 20}
    assert clock.now == 4.0  # Two pauses.


def test_the_next_is_waited_for_from_when_a_retried_one_was_measured(tmp_path, clock):
    folder(tmp_path, 10)()
    clock.events = {120.0: folder(tmp_path, 20)}
    tries = []

    def evaluate(step):
        tries.append(step)
        if len(tries) == 1:
            raise CorruptCheckpointError("a file is still to come")
        if step == 10:
            clock.now = 70.0  # It takes longer than the next is waited for.
        return {"step": step}

    assert evaluate_all(evaluate, tmp_path, clock) == {"step": 20}
    assert tries == [10, 10, 20]


def test_a_last_checkpoint_that_stays_damaged_is_waited_for_until_it_is_written_again(
    tmp_path, clock
):
    folder(tmp_path, 20)()
    manifest = tmp_path / "checkpoints" / "step_000000020" / "manifest.json"
    clock.events = {40.0: lambda: os.utime(manifest, (1, 1))}
    looks = []

    def evaluate(step):
        looks.append(clock.now)
        if clock.now < 40.0:
            raise CorruptCheckpointError("damaged")
        return {"step": step}

    assert evaluate_all(evaluate, tmp_path, clock) == {"step": 20}
    assert looks == [0.0, 2.0, 4.0, 40.0]


def test_checkpoints_of_which_none_is_whole_count_as_none(tmp_path):
    folder(tmp_path, 10)()

    def evaluate(step):
        raise CorruptCheckpointError("damaged")

    with pytest.raises(TimeoutError, match="No checkpoint appeared"):
        evaluate_as_they_appear(evaluate, tmp_path, timeout_seconds=0.01)
