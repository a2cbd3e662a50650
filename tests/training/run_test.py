"""Between loops: when they end, what is saved, what is best, what is new."""
# SPDX-License-Identifier: Apache-2.0

import io

import pytest
import tensorflow as tf

from tests.training import small
from vit_scaling.optimization.adam import Adam
from vit_scaling.training import run
from vit_scaling.training.checkpoints import Checkpoints
from vit_scaling.training.logs import RunLog, read_metrics
from vit_scaling.training.progress import Progress


def state_of(path, *, seed=0, model=None, **rules):
    model = model or small.linear(2)
    optimizer = Adam(small.experiment().schedule)
    optimizer.build(model.trainable_variables)
    progress = Progress(batch_size=4, total_steps=100, cores=2)
    step = tf.Variable(0, dtype=tf.int64)
    saved = Checkpoints(path, asynchronous=False, **rules)
    return run.RunState(model, optimizer, step, saved, progress, seed=seed)


def test_a_run_resumes_with_its_step_images_and_core_seconds(tmp_path):
    state = state_of(tmp_path, seed=3)
    assert not state.restore() and state.step == 0
    state.global_step.assign(40)
    state.progress.images_seen, state.progress.core_seconds = 160, 12.5
    state.save()
    again = state_of(tmp_path, seed=3)
    assert again.restore()
    assert again.step == 40
    assert again.progress.images_seen == 160
    assert again.progress.core_seconds == 12.5


def test_another_seed_is_refused_with_the_right_one(tmp_path):
    state_of(tmp_path, seed=3).save()
    with pytest.raises(ValueError, match=r"`seed` must be.*3.*received 4.*--seed=3"):
        state_of(tmp_path, seed=4).restore()


def test_a_save_that_is_waited_for_raises_at_once(tmp_path):
    state = state_of(tmp_path)
    state.checkpoints = Checkpoints(tmp_path, asynchronous=True)
    state.checkpoints.directory.write_text("a file where the folder should be")
    with pytest.raises(OSError, match="could not be written"):
        state.save(wait=True)


@pytest.mark.parametrize("batch_size", [0, -4, 6, "8", 8.0])
def test_a_batch_that_replicas_cannot_share_is_refused(batch_size):
    told = rf"`batch_size`.*4 replicas.* {batch_size!r}\."
    with pytest.raises(ValueError, match=told):
        run.check_batch(batch_size, small.mirrored(4))
    run.check_batch(8, small.mirrored(4))


def ends(function, start, total):
    found, step = [], start
    while step < total:
        step += function(step)
        found.append(step)
    return found


def test_loops_end_where_something_is_due():
    length = run.loop_length(
        10, 47, every={"checkpoint_every_steps": 15, "eval_every_steps": None}, at=[22]
    )
    assert ends(length, 0, 47) == [10, 15, 20, 22, 30, 40, 45, 47]


@pytest.mark.parametrize("start", range(47))
def test_loops_end_at_the_same_steps_wherever_a_run_was_stopped(start):
    length = run.loop_length(10, 47, every={"checkpoint_every_steps": 15}, at=[22])
    whole = ends(length, 0, 47)
    assert ends(length, start, 47) == [end for end in whole if end > start]


@pytest.mark.parametrize("name", ["steps_per_loop", "checkpoint_every_steps"])
def test_an_interval_of_nothing_is_refused(name):
    numbers = {"steps_per_loop": 5, "checkpoint_every_steps": 5, name: 0}
    first = numbers.pop("steps_per_loop")
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1 step"):
        run.loop_length(first, 10, every=numbers)


def test_training_stops_for_evaluation_at_multiples_and_at_the_end():
    assert list(run.stops(0, 4, 10)) == [4, 8, 10]
    assert list(run.stops(4, 4, 10)) == [8, 10]
    assert list(run.stops(5, 4, 8)) == [8]
    assert list(run.stops(0, None, 10)) == [10]
    assert list(run.stops(10, 4, 10)) == [10]  # A finished run is evaluated once more.


def test_checkpoints_are_due_at_multiples_at_single_steps_and_at_the_end(tmp_path):
    state = state_of(tmp_path, keep_last=99)
    for step in range(1, 12):
        state.global_step.assign(step)
        run.save_if_due(state, 11, 4, at=[3, 4])
    assert state.checkpoints.steps() == [3, 4, 8, 11]


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("eval/top1", [0.2, 0.5, 0.5, 0.4], 2),  # The first of equals.
        ("eval/loss", [3.0, 1.0, 2.0, 1.5], 2),
        ("other/figure", [0.1, 0.2, 0.3, 0.25], 3),
    ],
)
def test_the_best_is_kept_the_loss_by_its_smallness(tmp_path, metric, values, best):
    state = state_of(tmp_path, keep_last=1)
    name, _, key = metric.partition("/")
    for step, value in enumerate(values, 1):
        state.global_step.assign(step)
        run.keep_if_best(state, metric, {name: {key: value}})
        state.save()
    assert state.checkpoints.steps() == sorted({best, 4})
    assert state.checkpoints.best()["step"] == best


def test_a_metric_that_was_not_measured_is_refused_with_those_that_were(tmp_path):
    with pytest.raises(ValueError, match=r"`best_metric`.*eval/top1; received 'eval/t"):
        run.keep_if_best(state_of(tmp_path), "eval/top2", {"eval": {"top1": 1.0}})


@pytest.mark.parametrize("metric", ["eval/top2", "evla/top1", "eval", "top1", "few"])
def test_a_metric_that_nothing_will_measure_is_refused_before_training(metric):
    with pytest.raises(ValueError, match=r"`best_metric` must be eval/top1, .*few/…"):
        run.check_best_metric(metric, ["eval"], ["few"])


@pytest.mark.parametrize("metric", [None, "eval/top1", "eval/loss", "few/anything"])
def test_a_metric_that_something_measures_passes(metric):
    run.check_best_metric(metric, ["eval"], ["few"])


def test_no_metric_is_best_where_nothing_is_evaluated():
    with pytest.raises(ValueError, match="nothing is evaluated"):
        run.check_best_metric("eval/top1", (), ())


# Another process's checkpoints.


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


def follow(path, events, **options):
    clock = Clock(events)
    steps = run.new_checkpoints(
        path, clock=clock, sleep=clock.sleep, poll_seconds=1.0, **options
    )
    return list(steps), clock.now


def folder(path, *steps):
    def make():
        for step in steps:
            (path / "checkpoints" / f"step_{step:09d}").mkdir(parents=True)

    return make


def test_checkpoints_are_met_as_they_appear_until_the_last(tmp_path):
    events = {3: folder(tmp_path, 10), 6: folder(tmp_path, 20), 9: folder(tmp_path, 30)}
    steps, now = follow(tmp_path, events, timeout_seconds=100, last_step=30)
    assert steps == [10, 20, 30] and now == 9


def test_only_the_newest_of_several_is_met(tmp_path):
    folder(tmp_path, 10, 20)()
    events = {5: folder(tmp_path, 30, 40)}
    assert follow(tmp_path, events, timeout_seconds=9, last_step=40)[0] == [20, 40]


def test_waiting_ends_when_none_comes_in_time_counted_from_the_last(tmp_path):
    events = {8: folder(tmp_path, 10), 16: folder(tmp_path, 20)}
    steps, now = follow(tmp_path, events, timeout_seconds=10, last_step=99)
    assert steps == [10, 20] and 26 <= now <= 28


def test_a_loop_is_both_recorded_and_said(tmp_path):
    screen = io.StringIO()
    figures = {
        "loss": 1.0,
        "learning_rate": 0.1,
        "images_per_second": 2.0,
        "eta_seconds": 3.0,
    }
    run.log_loop(RunLog(tmp_path, screen=screen), 5, 10, figures)
    assert read_metrics(tmp_path, "train")[0]["loss"] == 1.0
    assert "5/10" in screen.getvalue()


def test_the_announcement_counts_parameters_and_says_where_it_starts(tmp_path):
    screen = io.StringIO()
    model = small.linear()
    for step in (0, 1200):
        run.announce(
            RunLog(tmp_path, screen=screen),
            model,
            small.mirrored(2),
            images=1438,
            step=step,
            total_steps=5000,
            jit_compile=False,
        )
    first, second = screen.getvalue().splitlines()
    for part in ("1,930 parameters", "1,438 training", "2 replica(s)", "starts"):
        assert part in first
    assert "resumes at step 1,200" in second and "5,000 steps" in second
