"""Options of a run: checked at once, and turned into the steps of what is due."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.training.options import RunOptions

OPTIONS = RunOptions(
    steps_per_loop=10, checkpoint_every_steps=15, eval_every_steps=None, keep_steps=[22]
)


def loop_ends(options, start, total):
    ends, step = [], start
    while step < total:
        step += options.loop_length(step, total)
        ends.append(step)
    return ends


def test_loops_end_where_something_is_due():
    assert loop_ends(OPTIONS, 0, 47) == [10, 15, 20, 22, 30, 40, 45, 47]


def test_loops_end_at_branches_and_at_both_ends_of_a_profile():
    options = RunOptions(steps_per_loop=50, branch_at=[7], profile_steps=[3, 9])
    assert loop_ends(options, 0, 12) == [3, 7, 9, 12]


@pytest.mark.parametrize("start", range(47))
def test_loops_end_at_the_same_steps_wherever_a_run_was_stopped(start):
    whole = loop_ends(OPTIONS, 0, 47)
    assert loop_ends(OPTIONS, start, 47) == [end for end in whole if end > start]


@pytest.mark.parametrize(
    "name",
    [
        "steps_per_loop",
        "checkpoint_every_steps",
        "eval_every_steps",
        "keep_last",
        "keep_every_steps",
    ],
)
def test_an_interval_of_nothing_is_rejected(name):
    with pytest.raises(
        ValueError, match=f"`{name}` must be an integer of at least 1.*received"
    ):
        RunOptions(**{name: 0})


@pytest.mark.parametrize("steps", [[5], [5, 5], [9, 5], [1, 2, 3]])
def test_a_profile_needs_two_rising_steps(steps):
    with pytest.raises(ValueError, match="`profile_steps` must be two rising steps"):
        RunOptions(profile_steps=steps)


def test_a_profile_begins_before_the_end():
    RunOptions(profile_steps=[5, 99]).check_total_steps(6)
    with pytest.raises(ValueError, match=r"before the run's end, step 6; received 6,9"):
        RunOptions(profile_steps=[6, 9]).check_total_steps(6)


def test_a_branch_beyond_the_end_is_rejected():
    RunOptions(branch_at=[40, 100]).check_total_steps(100)
    with pytest.raises(
        ValueError, match=r"`branch_at`.*ends at 100; received 101, 200"
    ):
        RunOptions(branch_at=[40, 101, 200]).check_total_steps(100)


@pytest.mark.parametrize(
    ("saved", "kept", "warns"),
    [
        (30, 50, True),
        (100, 50, True),
        (25, 50, False),
        (30, 200, False),
        (None, 50, False),
        (30, None, False),
    ],
)
def test_multiples_that_would_be_kept_but_are_never_saved_cause_a_warning(
    saved, kept, warns, caplog
):
    options = RunOptions(checkpoint_every_steps=saved, keep_every_steps=kept)
    options.check_total_steps(150)
    assert ("only those at multiples of" in caplog.text) is warns
    expected = f"multiples of {150 if saved == 30 else 100} stay"
    assert not warns or expected in caplog.text


def test_checkpoints_are_due_at_multiples_at_single_steps_and_at_the_end():
    options = RunOptions(checkpoint_every_steps=4, keep_steps=[3], branch_at=[4])
    due = [step for step in range(12) if options.is_checkpoint_due(step, 11)]
    assert due == [0, 3, 4, 8, 11]
    only = RunOptions(checkpoint_every_steps=None)
    assert [s for s in range(12) if only.is_checkpoint_due(s, 11)] == [0, 11]


def test_evaluations_are_due_at_multiples_and_at_the_end():
    def due(**options):
        made = RunOptions(**options)
        return [step for step in range(11) if made.is_evaluation_due(step, 10)]

    assert due(eval_every_steps=4) == [4, 8, 10]
    assert due(eval_every_steps=None) == [10]
    assert due(eval_every_steps=4, evaluate=False) == []


def test_changes_that_cannot_be_allowed_are_rejected_by_name():
    RunOptions(allow_changes=["train_data", "seed"])
    with pytest.raises(ValueError, match=r"`allow_changes`.*'classes'"):
        RunOptions(allow_changes=["classes"])
