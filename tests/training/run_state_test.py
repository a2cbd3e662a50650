"""Where a run stands: resumed with all of it, rolled back with its batches left out."""
# SPDX-License-Identifier: Apache-2.0

import functools
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training import small
from vit_scaling.optimization.adam import Adam
from vit_scaling.optimization.optimizer import Optimizer
from vit_scaling.training.checkpoint_variables import GLOBAL_STEP, variables_of
from vit_scaling.training.checkpoints import Checkpoints
from vit_scaling.training.divergence import DivergedError, LossGuard, LossWatch
from vit_scaling.training.options import RunOptions
from vit_scaling.training.progress import Progress
from vit_scaling.training.run_state import RunState

SCHEDULED = functools.partial(
    RunOptions(checkpoint_every_steps=20).is_checkpoint_due, total_steps=100
)
FORMAT_1 = pathlib.Path(__file__).parent / "data" / "format_1"


def state_of(
    path,
    *,
    seed=0,
    model=None,
    guard=None,
    sum_over_processes=int,
    batch_size=4,
    pipelines=1,
    **rules,
):
    model = model or small.linear(2)
    optimizer = Optimizer(Adam(), small.experiment().schedule)
    optimizer.build(model.trainable_variables)
    progress = Progress(batch_size=batch_size, total_steps=100, cores=2)
    step = tf.Variable(0, dtype=tf.int64)
    saved = Checkpoints(path, asynchronous=False, **rules)
    watch = LossWatch(guard or LossGuard())
    variables = variables_of(model, optimizer, step)
    return RunState(
        variables,
        saved,
        progress,
        watch,
        seed=seed,
        sum_over_processes=sum_over_processes,
        pipelines=pipelines,
    )


def at(state, step):
    state.variables[GLOBAL_STEP].assign(step)


def test_a_run_resumes_with_its_step_images_and_core_seconds(tmp_path):
    state = state_of(tmp_path, seed=3)
    assert not state.restore() and state.step == 0
    at(state, 40)
    state.progress.images_seen, state.progress.core_seconds = 160, 12.5
    state.save()
    again = state_of(tmp_path, seed=3)
    assert again.restore()
    assert again.step == 40
    assert again.progress.images_seen == 160
    assert again.progress.core_seconds == 12.5


def test_another_seed_is_rejected_with_the_right_one(tmp_path):
    state_of(tmp_path, seed=3).save()
    with pytest.raises(ValueError, match=r"`seed` must be.*3.*received 4.*--seed=3"):
        state_of(tmp_path, seed=4).restore()


def test_another_batch_size_is_rejected_with_the_right_one(tmp_path):
    state_of(tmp_path, batch_size=4).save()
    with pytest.raises(
        ValueError,
        match=r"`batch_size` must be.*, 4,.*received 8\. Bind BATCH_SIZE = 4",
    ):
        state_of(tmp_path, batch_size=8).restore()
    assert state_of(tmp_path, batch_size=4).restore()


def test_seed_and_batch_size_may_change_where_that_is_allowed(tmp_path):
    state_of(tmp_path, seed=3, batch_size=4).save()
    again = state_of(tmp_path, seed=4, batch_size=8)
    again.allow_changes = ["batch_size"]
    with pytest.raises(ValueError, match="`seed`"):
        again.restore()
    again.allow_changes = ["batch_size", "seed"]
    assert again.restore()


def test_a_total_below_the_step_that_was_reached_is_rejected(tmp_path):
    state = state_of(tmp_path)
    at(state, 40)
    state.save()
    state.progress.total_steps = 40
    assert state.restore()  # A finished run.
    state.progress.total_steps = 39
    message = "`total_steps` is 39, below step 40, .* Bind TOTAL_STEPS = 40 or more"
    with pytest.raises(ValueError, match=message):
        state.restore()


def test_another_number_of_hosts_is_warned_of(tmp_path, caplog):
    state_of(tmp_path, pipelines=2).save()
    assert state_of(tmp_path, pipelines=2).restore()
    assert not caplog.text
    assert state_of(tmp_path, pipelines=1).restore()
    assert "saved by 2 host(s) and continues with 1" in caplog.text


def test_a_run_continues_with_the_order_of_batches_that_it_began_with(tmp_path, caplog):
    before = state_of(tmp_path)  # Versions were not recorded yet.
    before.save()
    state = state_of(tmp_path)
    state.order_version = 2
    assert state.restore() and state.order_version == 1
    assert "continues with the order of batches that it began with" in caplog.text
    caplog.clear()
    state.order_version = 2
    at(state, 20)
    state.save()
    again = state_of(tmp_path)
    again.order_version = 2
    assert again.restore() and again.order_version == 2
    assert not caplog.text


def test_a_checkpoint_from_before_batch_size_and_hosts_were_kept_is_accepted(
    tmp_path, caplog
):
    shutil.copytree(FORMAT_1, tmp_path / "run")
    images = keras.Input((4,), name="images")
    head = keras.layers.Dense(3, name="head")
    model = keras.Model(images, head(images))
    optimizer = Optimizer(
        Adam(first_moment_dtype="bfloat16"),
        small.experiment().schedule,
        average_decay=0.9,
    )
    optimizer.build(model.trainable_variables)
    variables = variables_of(model, optimizer, tf.Variable(0, dtype=tf.int64))
    progress = Progress(batch_size=64, total_steps=100, cores=2)
    saved = Checkpoints(tmp_path / "run", asynchronous=False)
    watch = LossWatch(LossGuard())
    state = RunState(variables, saved, progress, watch, seed=3, pipelines=2)
    assert state.restore() and state.step == 5 and not caplog.text


def test_a_save_that_is_waited_for_raises_at_once(tmp_path):
    state = state_of(tmp_path)
    state.checkpoints = Checkpoints(tmp_path, asynchronous=True)
    state.checkpoints.directory.write_text("a file where the folder should be")
    with pytest.raises(OSError, match="could not be written"):
        state.save(wait=True)


def weight(state):
    return state.variables["model/head/bias"]


def test_a_roll_back_restores_the_weights_and_leaves_the_batches_out(tmp_path):
    guard = LossGuard(roll_back=True, max_roll_backs=2)
    state = state_of(tmp_path, guard=guard)
    at(state, 20)
    weight(state).assign([1.0, 2.0])
    state.watch.losses = [3.0, 2.5]
    state.save()
    at(state, 25)
    weight(state).assign([np.nan, np.nan])
    state.watch.losses = [3.0, 2.5, 2.4]
    event = state.roll_back(DivergedError("The loss, nan. Nothing of them was saved."))
    assert state.step == 20 and state.batch == 25
    assert weight(state).numpy().tolist() == [1.0, 2.0]
    assert state.watch.losses == [3.0, 2.5]
    assert event == {
        "from_step": 25,
        "left_out_batches": 5,
        "roll_backs": 1,
        "reason": "The loss, nan.",
    }
    at(state, 30)  # Once more, before anything was saved: from batch 25 to 35.
    assert state.roll_back(DivergedError("Again."))["left_out_batches"] == 15
    assert state.step == 20 and state.batch == 35
    with pytest.raises(DivergedError, match=r"Once more.*rolled back 2 times already"):
        state.roll_back(DivergedError("Once more."))


def test_a_roll_back_passes_over_what_was_saved_in_between(tmp_path):
    guard, rules = LossGuard(roll_back=True), {"keep_last": 1}
    state = state_of(tmp_path, guard=guard, scheduled=SCHEDULED, **rules)
    for step in (20, 25):  # SIGTERM came at 25.
        at(state, step)
        state.save()
    assert state.checkpoints.steps() == [20, 25]
    again = state_of(tmp_path, guard=guard, scheduled=SCHEDULED, **rules)
    assert again.restore() and again.step == 25
    at(again, 30)
    event = again.roll_back(DivergedError("The loss exploded."))
    assert (again.step, again.batch, event["left_out_batches"]) == (20, 30, 10)
    assert again.checkpoints.steps() == [20]


def test_the_best_is_gone_back_to_wherever_it_was_saved(tmp_path):
    guard = LossGuard(roll_back=True)
    state = state_of(tmp_path, guard=guard, scheduled=SCHEDULED)
    for step in (20, 25):
        at(state, step)
        state.save()
    state.checkpoints.mark_best(25, "eval/top1", 0.5)
    state.roll_back(DivergedError("The loss exploded."))
    assert state.step == 25


def test_left_out_batches_survive_a_restart(tmp_path):
    state = state_of(tmp_path)
    at(state, 20)
    state.watch.skip(5, roll_backs=1)
    state.watch.losses = [0.1, 1 / 3]
    state.save()
    again = state_of(tmp_path)
    again.restore()
    assert again.batch == 25 and again.watch.roll_backs == 1
    assert again.watch.losses == [0.1, 1 / 3]


def test_a_guard_that_does_not_roll_back_lets_the_error_through(tmp_path):
    state = state_of(tmp_path)
    state.save()
    at(state, 3)
    error = DivergedError("The loss exploded.")
    with pytest.raises(DivergedError) as raised:
        state.roll_back(error)
    assert raised.value is error and state.step == 3


def test_time_spent_on_what_was_rolled_back_stays_spent(tmp_path):
    state = state_of(tmp_path, guard=LossGuard(roll_back=True))
    state.progress.images_seen, state.progress.core_seconds = 80, 10.0
    state.save()
    state.progress.images_seen, state.progress.core_seconds = 120, 15.0
    state.roll_back(DivergedError("The loss exploded."))
    assert state.progress.images_seen == 80 and state.progress.core_seconds == 15.0


def test_a_worker_takes_the_checkpoint_that_the_chief_took(tmp_path):
    chief = state_of(tmp_path, keep_last=9)
    for step in (4, 8):
        at(chief, step)
        chief.save()

    def says_four(own):
        assert own == 0  # A worker does not choose.
        return 4 + 1

    worker = state_of(tmp_path, sum_over_processes=says_four, writes=False)
    assert worker.restore() and worker.step == 4
    none = state_of(tmp_path, sum_over_processes=lambda own: 0, writes=False)
    assert not none.restore() and none.step == 0
