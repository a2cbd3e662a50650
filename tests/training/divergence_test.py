"""Losses gone wrong: what counts, what does not, what a checkpoint keeps of them."""
# SPDX-License-Identifier: Apache-2.0

import json
import math

import pytest

from vit_scaling.training.divergence import (
    DivergedError,
    LossGuard,
    LossWatch,
    NonFiniteError,
)


def watch(*losses, **rules):
    made = LossWatch(LossGuard(**rules))
    for step, loss in enumerate(losses, 1):
        made.check(step, {"loss": loss})
    return made


@pytest.mark.parametrize(
    ("outputs", "met"),
    [
        ({"loss": math.nan}, 0),
        ({"loss": math.inf}, 0),
        ({"loss": 1.0}, 2),
        ({"loss": 1.0, "parameter_norm": math.inf}, 0),
        ({"loss": 1.0, "parameter_norm": math.nan}, 0),
    ],
)
def test_what_is_not_finite_has_gone_wrong(outputs, met):
    with pytest.raises(NonFiniteError, match=r"up to 7 .*Nothing of them was saved"):
        watch().check(7, outputs, nonfinite_steps=met)


def test_steps_that_the_optimizer_left_out_are_excused_and_not_remembered():
    made = watch(2.0, 1.0)
    outputs = {"loss": math.nan, "parameter_norm": math.nan}
    made.check(3, outputs, nonfinite_steps=1, skips_nonfinite=True)
    assert made.losses == [2.0, 1.0]
    with pytest.raises(NonFiniteError):  # Not explained by a step that was left out.
        made.check(4, outputs, nonfinite_steps=0, skips_nonfinite=True)


def lose(made, step, left_out=2):
    outputs = {"loss": math.nan}
    made.check(step, outputs, steps=2, nonfinite_steps=left_out, skips_nonfinite=True)


def test_loops_of_which_nothing_is_left_stop_the_run_if_they_go_on():
    made = watch(2.0, max_lost_loops=3)
    lose(made, 4)
    lose(made, 6)
    lose(made, 8, left_out=1)  # One step of two was good: counting starts again.
    lose(made, 10)
    lose(made, 12)
    again = LossWatch(made.guard)
    again.restore(json.loads(json.dumps(made.state())))
    for each in (made, again):  # A run that was killed counts as one that was not.
        with pytest.raises(NonFiniteError, match=r"the last 3 loops, up to 14, had"):
            lose(each, 14)


def test_a_loss_explodes_against_the_median_of_the_loops_before():
    made = watch(5.0, 1.0, 1.2, explodes_at=3.0)
    made.check(4, {"loss": 3.5})  # The median is 1.2, the limit 3.6.
    with pytest.raises(
        DivergedError, match=r"up to 5, 10, .* 3 times the median.*2\.35"
    ):
        made.check(5, {"loss": 10.0})  # The median of 5, 1, 1.2 and 3.5 is 2.35.


def test_two_loops_are_too_few_to_judge_by():
    watch(1.0, 1.0, 100.0, explodes_at=2.0)
    with pytest.raises(DivergedError):
        watch(1.0, 1.0, 1.0, 100.0, explodes_at=2.0)


def test_without_a_limit_no_finite_loss_is_wrong():
    assert watch(1.0, 1.0, 1.0, 1e9).losses[-1] == 1e9


def test_only_the_last_loops_count():
    made = watch(*[9.0] * 5, 1.0, 1.0, 1.0, window_loops=3, explodes_at=2.0)
    assert made.losses == [1.0, 1.0, 1.0]
    with pytest.raises(DivergedError):
        made.check(9, {"loss": 2.1})


def test_a_restored_watch_judges_as_the_one_that_was_saved():
    made = watch(0.1, 1 / 3, 2 / 7, explodes_at=3.0)
    made.skip(40, roll_backs=1)
    again = LossWatch(made.guard)
    again.restore(json.loads(json.dumps(made.state())))
    assert again.state() == made.state()
    for each in (made, again):
        each.check(4, {"loss": 3.0 * 2 / 7})
        with pytest.raises(DivergedError):
            each.check(5, {"loss": 1.0})


def test_checkpoints_from_before_restore_to_nothing():
    made = watch(1.0)
    made.restore({"images_seen": 3})
    assert made.state() == {
        "recent_losses": [],
        "skipped_batches": 0,
        "roll_backs": 0,
        "lost_loops": 0,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("explodes_at", 1.0),
        ("explodes_at", math.nan),
        ("window_loops", 2),
        ("max_roll_backs", 0),
        ("max_lost_loops", 0),
    ],
)
def test_rules_out_of_range_are_rejected(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        LossGuard(**{name: value})


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("rolls_back", [False, True])
def test_the_advice_leaves_out_what_is_bound_already(skips, rolls_back):
    made = watch(roll_back=rolls_back)
    with pytest.raises(NonFiniteError, match="lower learning rate") as raised:
        made.check(7, {"loss": math.nan}, skips_nonfinite=skips)
    assert ("skip_nonfinite = True" in str(raised.value)) == (not skips)
    assert ("LossGuard.roll_back = True" in str(raised.value)) == (not rolls_back)
    made = watch(*[1.0] * 10, roll_back=rolls_back, explodes_at=2.0)
    with pytest.raises(DivergedError, match="lower learning rate") as raised:
        made.check(11, {"loss": 9.0}, skips_nonfinite=skips)
    assert "skip_nonfinite" not in str(raised.value)  # The loss is finite.
    assert ("LossGuard.roll_back = True" in str(raised.value)) == (not rolls_back)
