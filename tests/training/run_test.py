"""The loop of a run: what it saves, evaluates, rolls back, and when it stops."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import io
import math
import signal
import types

import pytest

from tests.training import small
from tests.training.run_state_test import at, state_of
from vit_scaling.training.divergence import DivergedError, LossGuard
from vit_scaling.training.logs import RunLog, read_metrics
from vit_scaling.training.options import RunOptions
from vit_scaling.training.preemption import PreemptedError, PreemptionNotice
from vit_scaling.training.run import Run, describe_run, save_if_best

OUTPUTS = {
    "loss": 1.0,
    "learning_rate": 0.1,
    "images_per_second": 2.0,
    "eta_seconds": 3.0,
}


class Trainer:
    """Counts steps; fails once at some of them."""

    times = None

    def __init__(self, state, fails=()):
        self.state, self.fails = state, set(fails)
        self.train_dataset = None

    def train(self, steps):
        at(self.state, self.state.step + int(steps))
        if self.state.step in self.fails:
            self.fails.remove(self.state.step)
            raise DivergedError("The loss exploded.")
        return OUTPUTS


class Evaluator:
    """Notes the steps at which it evaluates."""

    def __init__(self, state):
        self.state, self.steps = state, []

    def evaluate(self):
        self.steps.append(self.state.step)
        return {"eval": {"top1": self.state.step / 100}}


def run_of(path, *, fails=(), guard=None, total=6, start=None, **options):
    """Return a restored run of loops of one step, saved every two steps."""
    options = {"checkpoint_every_steps": 2, "eval_every_steps": 3, **options}
    options = RunOptions(steps_per_loop=1, **options)
    state = state_of(path, guard=guard, keep_last=9)
    state.progress.total_steps = total
    if start is not None:
        at(state, start)
        state.save()
    run = Run(
        options=options,
        model=small.linear(),
        trainer=Trainer(state, fails),
        evaluator=Evaluator(state),
        state=state,
        log=RunLog(path, screen=io.StringIO()),
        preemption=PreemptionNotice(),
        batches_from=lambda number, version: f"batches from {number}",
        evaluated_weights=contextlib.nullcontext,
    )
    run.restore()
    if start is None:
        state.save()
    return run


def evaluated(path, **options):
    run = run_of(path, **options)
    run.train()
    return run.evaluator.steps


@pytest.mark.parametrize(
    ("start", "every", "total", "steps"),
    [
        (None, 4, 10, [4, 8, 10]),
        (None, None, 10, [10]),
        # A run that resumes where an evaluation is due evaluates first.
        (4, 4, 10, [4, 8, 10]),
        (5, 4, 10, [8, 10]),
        (5, 4, 8, [8]),
        (0, 4, 8, [4, 8]),
        (8, 4, 8, [8]),  # A finished run is evaluated once more.
        (8, None, 8, [8]),
        (4, None, 8, [8]),
    ],
)
def test_evaluations_are_at_multiples_and_at_the_end(
    tmp_path, start, every, total, steps
):
    found = evaluated(tmp_path, start=start, eval_every_steps=every, total=total)
    assert found == steps


def test_an_evaluation_that_was_rolled_back_is_repeated(tmp_path):
    steps = evaluated(
        tmp_path,
        fails={5},
        guard=LossGuard(roll_back=True),
        eval_every_steps=3,
        checkpoint_every_steps=6,
        total=7,
    )
    assert steps == [3, 3, 6, 7]


def test_a_run_that_does_not_evaluate_has_no_metrics(tmp_path):
    run = run_of(tmp_path, evaluate=False)
    assert run.train() == {} and not run.evaluator.steps


def test_training_saves_at_multiples_and_returns_the_last_metrics(tmp_path):
    run = run_of(tmp_path)
    assert run.train() == {"eval": {"top1": 0.06}}
    assert run.state.checkpoints.steps() == [0, 2, 4, 6]
    assert run.trainer.train_dataset == "batches from 0"


def test_averages_are_the_weights_only_while_evaluating(tmp_path):
    run, inside = run_of(tmp_path), []

    @contextlib.contextmanager
    def weights():
        inside.append(run.step)
        yield

    run.evaluated_weights = weights
    run.train()
    assert inside == run.evaluator.steps == [3, 6]


def test_a_diverged_loss_is_rolled_back_logged_and_its_batches_left_out(tmp_path):
    run = run_of(tmp_path, fails={5}, guard=LossGuard(roll_back=True))
    run.train()
    assert run.trainer.train_dataset == "batches from 5"  # 4 was the last save.
    assert run.step == 6 and run.state.batch == 7
    (row,) = read_metrics(tmp_path, "roll_back")
    assert (row["step"], row["from_step"], row["left_out_batches"]) == (4, 5, 1)
    (row,) = read_metrics(tmp_path, "diverged")
    assert row["step"] == 5 and row["reason"] == "The loss exploded."
    screen = run.log._screen.getvalue()
    assert "Rolled back from step 5 to 4; 1 batches" in screen


def test_a_diverged_loss_stops_the_run_by_default_and_is_logged(tmp_path):
    run = run_of(tmp_path, fails={5})
    with pytest.raises(DivergedError, match="exploded"):
        run.train()
    assert run.evaluator.steps == [3]
    assert read_metrics(tmp_path, "diverged")[0]["step"] == 5
    assert not read_metrics(tmp_path, "roll_back")


def test_a_preempted_run_saves_and_stops(tmp_path):
    run = run_of(tmp_path)
    at(run.state, 5)
    with run.preemption.catch_sigterm():
        run.stop_if_preempted()
        assert run.state.checkpoints.steps() == [0]
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(PreemptedError, match=r"saved at step 5\. Start the same"):
            run.stop_if_preempted()
    assert run.state.checkpoints.steps() == [0, 5]


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
        save_if_best(state, metric, {name: {key: value}})
        state.save()
    assert state.checkpoints.steps() == sorted({best, 4})
    assert state.checkpoints.best()["step"] == best


def test_a_metric_that_was_not_measured_is_rejected_with_those_that_were(tmp_path):
    with pytest.raises(ValueError, match=r"`best_metric`.*eval/top1; received 'eval/t"):
        save_if_best(state_of(tmp_path), "eval/top2", {"eval": {"top1": 1.0}})


def test_a_set_that_is_measured_less_often_is_left_until_it_is(tmp_path):
    state = state_of(tmp_path)
    for step, figures in enumerate(({}, {"few": {"mean": 0.5}}, {}), 1):
        at(state, step)
        save_if_best(state, "few/mean", {"eval": {"top1": 0.9}, **figures})
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
    save_if_best(state, "eval/top1", {"eval": {"top1": 0.001}})
    found = {"step": 5, "metric": "eval/top1", "value": 0.001}
    assert state.checkpoints.best() == found


def test_a_loop_is_both_recorded_and_printed(tmp_path):
    run = run_of(tmp_path)
    at(run.state, 5)
    run.trainer.times = types.SimpleNamespace(advice=lambda: "Read faster.")
    run.log_loop(OUTPUTS)
    assert read_metrics(tmp_path, "train")[0]["loss"] == 1.0
    screen = run.log._screen.getvalue()
    assert "5/6" in screen and "Read faster." in screen


def test_the_description_counts_parameters_and_names_the_first_step():
    first, second = (
        describe_run(
            types.SimpleNamespace(
                model=small.linear(),
                trainer=types.SimpleNamespace(strategy=small.mirrored(2)),
                step=step,
                total_steps=5000,
            ),
            images=1438,
            xla=False,
        )
        for step in (0, 1200)
    )
    for part in ("1,930 parameters", "1,438 training", "2 replica(s)", "starts"):
        assert part in first
    assert "resumes at step 1,200" in second and "5,000 steps" in second


def test_a_failed_write_stops_the_run_after_the_next_loop(tmp_path):
    run = run_of(tmp_path, total=40, checkpoint_every_steps=20, eval_every_steps=None)
    checkpoints = run.state.checkpoints
    checkpoints.asynchronous = True
    write = checkpoints._write

    def fails(step, values, state):
        values.clear()  # Nothing to write: TensorFlow rejects an empty bundle.
        write(step, {"key": object()}, state)

    checkpoints._write = fails
    train = run.trainer.train

    def train_after_the_write(steps):
        if checkpoints._thread is not None:
            checkpoints._thread.join()
        return train(steps)

    run.trainer.train = train_after_the_write
    with pytest.raises(OSError, match=r"could not be written.*Complete.*\[0\]"):
        run.train()
    assert run.step == 21  # Not 40, where the next checkpoint is due.
