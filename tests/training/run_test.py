"""Between loops: when they end, what is saved, what is best, what is undone."""
# SPDX-License-Identifier: Apache-2.0

import io
import math
import signal
import types

import pytest

from tests.training import small
from tests.training.state_test import at, state_of
from vit_scaling.training import run
from vit_scaling.training.divergence import DivergedError, LossGuard
from vit_scaling.training.logs import RunLog, read_metrics
from vit_scaling.training.preemption import Notice, PreemptedError
from vit_scaling.training.strategy import make_strategy


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


class Reached:
    """A run that reaches what it is told to, unless it is rolled back."""

    def __init__(self, step, roll_backs=()):
        self.step, self.roll_backs = step, dict(roll_backs)

    def stops(self, every, total, **options):
        found = []
        for stop in run.stops(lambda: self.step, every, total, **options):
            self.step = self.roll_backs.pop(stop, stop)
            found.append(stop)
        return found


def test_training_stops_for_evaluation_at_multiples_and_at_the_end():
    assert Reached(0).stops(4, 10) == [4, 8, 10]
    assert Reached(4).stops(4, 10) == [8, 10]
    assert Reached(5).stops(4, 8) == [8]
    assert Reached(0).stops(None, 10) == [10]
    assert Reached(10).stops(4, 10) == [10]  # A finished run is evaluated once more.


def test_a_run_that_resumes_where_an_evaluation_is_due_evaluates_first():
    assert Reached(4).stops(4, 10, resumed=True) == [4, 8, 10]
    assert Reached(5).stops(4, 10, resumed=True) == [8, 10]
    assert Reached(0).stops(4, 8, resumed=True) == [4, 8]
    assert Reached(8).stops(4, 8, resumed=True) == [8]
    assert Reached(4).stops(None, 8, resumed=True) == [8]


def test_what_was_rolled_back_is_stopped_for_again():
    assert Reached(0, {8: 2}).stops(4, 10) == [4, 8, 4, 8, 10]
    assert Reached(0, {10: 8}).stops(4, 10) == [4, 8, 10, 10]


def test_checkpoints_are_due_at_multiples_at_single_steps_and_at_the_end(tmp_path):
    state = state_of(tmp_path, keep_last=99)
    for step in range(1, 12):
        at(state, step)
        if run.due(11, 4, at=[3, 4])(step):
            state.save()
    assert state.checkpoints.steps() == [3, 4, 8, 11]
    only = run.due(11, None)
    assert [step for step in range(12) if only(step)] == [0, 11]


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("eval/top1", [0.2, 0.5, 0.5, 0.4], 2),  # The first of equals.
        ("eval/loss", [3.0, 1.0, 2.0, 1.5], 2),
        ("other/figure", [0.1, 0.2, 0.3, 0.25], 3),
        ("eval/loss", [math.nan, 2.0, 1.0, math.nan], 3),
        ("eval/top1", [0.1, math.inf, 0.2, 0.1], 3),
    ],
)
def test_the_best_is_kept_the_loss_by_its_smallness(tmp_path, metric, values, best):
    state = state_of(tmp_path, keep_last=1)
    name, _, key = metric.partition("/")
    for step, value in enumerate(values, 1):
        at(state, step)
        run.keep_if_best(state, metric, {name: {key: value}})
        state.save()
    assert state.checkpoints.steps() == sorted({best, 4})
    assert state.checkpoints.best()["step"] == best


def test_a_metric_that_was_not_measured_is_refused_with_those_that_were(tmp_path):
    with pytest.raises(ValueError, match=r"`best_metric`.*eval/top1; received 'eval/t"):
        run.keep_if_best(state_of(tmp_path), "eval/top2", {"eval": {"top1": 1.0}})


def test_a_set_that_is_measured_less_often_is_left_until_it_is(tmp_path):
    state = state_of(tmp_path)
    for step, figures in enumerate(({}, {"few": {"mean": 0.5}}, {}), 1):
        at(state, step)
        run.keep_if_best(state, "few/mean", {"eval": {"top1": 0.9}, **figures})
    assert state.checkpoints.best()["step"] == 2


@pytest.mark.parametrize(
    ("metric", "value"), [("eval/loss", 0.01), ("eval/top1", math.nan)]
)
def test_the_best_by_another_metric_or_of_no_number_is_not_compared_with(
    tmp_path, metric, value
):
    state = state_of(tmp_path)
    state.save()
    state.checkpoints.mark_best(0, metric, value)
    at(state, 5)
    run.keep_if_best(state, "eval/top1", {"eval": {"top1": 0.001}})
    found = {"step": 5, "metric": "eval/top1", "value": 0.001}
    assert state.checkpoints.best() == found


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
            step,
            5000,
            images=1438,
            xla=False,
        )
    first, second = screen.getvalue().splitlines()
    for part in ("1,930 parameters", "1,438 training", "2 replica(s)", "starts"):
        assert part in first
    assert "resumes at step 1,200" in second and "5,000 steps" in second


class Controller:
    """Trains to where it is told, a step at a time; fails after some steps, once."""

    def __init__(self, state, fails=()):
        self.state, self.fails = state, set(fails)
        self.trainer = types.SimpleNamespace(train_dataset="batches from 0")

    def train(self, stop, checkpoint_at_completion):
        while self.state.step < stop:
            at(self.state, self.state.step + 1)
            if self.state.step in self.fails:
                self.fails.remove(self.state.step)
                raise DivergedError("The loss exploded.")
            if run.due(stop, 2)(self.state.step):
                self.state.save()


def trained(path, fails=(), guard=None, total=6):
    state = state_of(path, guard=guard, keep_last=9)
    state.save()
    controller, screen = Controller(state, fails), io.StringIO()
    stops = run.stops(lambda: state.step, 3, total)
    steps = run.trained_to(
        stops,
        controller,
        state,
        log=RunLog(path, screen=screen),
        batches=lambda number: f"batches from {number}",
    )
    return steps, state, controller, screen


def test_training_goes_from_stop_to_stop(tmp_path):
    steps, state, controller, _ = trained(tmp_path)
    assert list(steps) == [3, 6] and state.step == 6
    assert controller.trainer.train_dataset == "batches from 0"


def test_a_loss_gone_wrong_is_undone_logged_and_its_batches_left_out(tmp_path):
    guard = LossGuard(roll_back=True)
    steps, state, controller, screen = trained(tmp_path, {5}, guard)
    assert list(steps) == [3, 6]
    assert controller.trainer.train_dataset == "batches from 5"  # 4 was the last save.
    assert state.step == 6 and state.batch == 7
    (row,) = read_metrics(tmp_path, "roll_back")
    assert (row["step"], row["from_step"], row["left_out_batches"]) == (4, 5, 1)
    (row,) = read_metrics(tmp_path, "diverged")
    assert row["step"] == 5 and row["reason"] == "The loss exploded."
    assert "Rolled back from step 5 to 4; 1 batches" in screen.getvalue()


def test_a_loss_gone_wrong_stops_the_run_where_that_is_bound_and_is_logged(tmp_path):
    steps, *_ = trained(tmp_path, {5})
    assert next(steps) == 3
    with pytest.raises(DivergedError, match="exploded"):
        next(steps)
    assert read_metrics(tmp_path, "diverged")[0]["step"] == 5
    assert not read_metrics(tmp_path, "roll_back")


def test_a_run_that_was_asked_to_end_saves_and_leaves(tmp_path):
    state, notice = state_of(tmp_path), Notice()
    at(state, 7)
    with notice.watched():
        run.stop_if_asked(notice, state)
        assert not state.checkpoints.steps()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(PreemptedError, match=r"saved at step 7\. Start the same"):
            run.stop_if_asked(notice, state)
    assert state.checkpoints.steps() == [7]


def test_operations_are_counted_where_a_peak_is_known():
    model, strategy = small.linear(), make_strategy()
    for peak in (None, 1e9):
        progress = run.progress_of(model, strategy, 8, 10, peak)
        assert ("share_of_peak" in progress.report(0)) is (peak is not None)
