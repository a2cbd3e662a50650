"""A run's checkpoints: keyed by path, kept by rules, resumed from the newest whole."""
# SPDX-License-Identifier: Apache-2.0

import functools
import pathlib
import resource
import threading

import keras
import numpy as np
import pytest

from tests.training import small
from tests.training.small_states import (
    AVERAGED,
    MOMENTUM,
    SCHEDULE,
    numbers,
    parts,
    randomize,
    saver,
)
from vit_scaling import io_files
from vit_scaling.optimization.adafactor import Adafactor
from vit_scaling.optimization.adam import Adam
from vit_scaling.optimization.optimizer import Optimizer
from vit_scaling.training import checkpoints
from vit_scaling.training.checkpoint_files import CorruptCheckpointError
from vit_scaling.training.checkpoint_variables import variables_of
from vit_scaling.training.checkpoints import Checkpoints

FORMAT_1 = pathlib.Path(__file__).parent / "data" / "format_1"


def plain(step):
    return {"model/v": keras.Variable(np.full(3, step, np.float32))}


# What is saved, and under which names.


@pytest.mark.parametrize(
    ("make_optimizer", "make_model", "asynchronous"),
    [
        (AVERAGED, functools.partial(small.small_vit, dropout=0.1), True),
        (AVERAGED, small.linear, False),
        (
            functools.partial(Optimizer, Adafactor()),
            functools.partial(small.linear, 200),
            False,
        ),
        (MOMENTUM, small.linear, True),
    ],
)
def test_model_and_optimizer_come_back_bit_for_bit(
    tmp_path, make_optimizer, make_model, asynchronous
):
    model, optimizer = parts(make_optimizer, make_model())
    variables = variables_of(model, optimizer)
    randomize(variables, 1)
    expected = numbers(variables)
    saved = Checkpoints(tmp_path, asynchronous=asynchronous)
    saved.save(4, variables, {"seed": 2})
    randomize(variables, 2)  # What is written is what was there when `save` was called.
    saved.wait()
    other = variables_of(*parts(make_optimizer, make_model()))
    assert Checkpoints(tmp_path).restore(other) == {"seed": 2, "step": 4}
    assert numbers(other) == expected


# Which checkpoints stay.


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ({"keep_last": 1}, [10]),
        ({"keep_last": 3}, [8, 9, 10]),
        ({"keep_last": 2, "keep_every_steps": 4}, [4, 8, 9, 10]),
        ({"keep_last": 1, "keep_steps": (2, 5)}, [2, 5, 10]),
        ({"keep_last": None}, list(range(11))),
        ({"keep_last": 2, "scheduled": lambda step: step % 4 == 0}, [4, 8, 10]),
    ],
)
def test_checkpoints_stay_by_the_rules(tmp_path, rules, left):
    saved = saver(tmp_path, **rules)
    for step in range(11):
        saved.save(step, plain(step), {})
    assert saved.steps() == left
    for step in left:
        variables = plain(-1)
        saved.restore(variables, step=step)
        assert variables["model/v"].numpy().tolist() == [step] * 3


def test_the_best_checkpoint_stays_until_a_better_one_comes(tmp_path):
    saved = saver(tmp_path, keep_last=1)
    assert saved.best() is None
    for step in range(6):
        saved.save(step, plain(step), {})
        if step in (1, 3):
            saved.mark_best(step, "eval/top1", step / 10)
    assert saved.steps() == [3, 5]
    assert saved.best() == {"step": 3, "metric": "eval/top1", "value": 0.3}


def test_a_step_is_not_written_twice(tmp_path):
    saved = saver(tmp_path)
    saved.save(1, plain(1), {})
    saved.save(1, plain(99), {})
    variables = plain(-1)
    saved.restore(variables)
    assert variables["model/v"].numpy().tolist() == [1, 1, 1]


def test_workers_other_than_the_chief_read_and_never_write(tmp_path):
    saver(tmp_path).save(1, plain(1), {})
    other = Checkpoints(tmp_path, writes=False)
    other.save(2, plain(2), {})
    other.mark_best(1, "eval/top1", 1.0)
    other.discard_after(0)
    other.wait()
    assert other.steps() == [1] and other.best() is None
    assert other.restore(plain(0)) == {"step": 1}


# Damage.


def damage(folder, kind):
    data = pathlib.Path(folder / "variables.data-00000-of-00001")
    content = data.read_bytes()
    if kind == "cut":
        data.write_bytes(content[:-3])
    elif kind == "flipped":
        data.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    else:
        pathlib.Path(folder / "manifest.json").write_text('{"format": 1')


@pytest.mark.parametrize("kind", ["cut", "flipped", "manifest"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    tmp_path, caplog, kind
):
    saved = saver(tmp_path)
    for step in (1, 2, 3):
        saved.save(step, plain(step), {})
    damage(saved.path(3), kind)
    variables = plain(-1)
    assert saved.restore(variables)["step"] == 2
    assert variables["model/v"].numpy().tolist() == [2, 2, 2]
    assert "step_000000003" in caplog.text and "is damaged" in caplog.text


def test_asking_for_a_damaged_step_takes_no_other(tmp_path):
    saved = saver(tmp_path)
    for step in (1, 2):
        saved.save(step, plain(step), {})
    damage(saved.path(2), "cut")
    with pytest.raises(CorruptCheckpointError, match="step_000000002"):
        saved.restore(plain(0), step=2)


def test_nothing_is_assigned_where_every_checkpoint_is_damaged(tmp_path):
    saved = saver(tmp_path)
    for step in (1, 2):
        saved.save(step, plain(step), {})
        damage(saved.path(step), "cut")
    variables = plain(-1)
    with pytest.raises(
        CorruptCheckpointError,
        match=r"No complete checkpoint.*0002.*0001.*Put one.*back.*new --model_dir",
    ):
        saved.restore(variables)
    assert variables["model/v"].numpy().tolist() == [-1, -1, -1]


def test_a_file_in_the_place_of_a_checkpoint_is_passed_over(tmp_path, caplog):
    saved = saver(tmp_path, keep_last=5)
    saved.save(1, plain(1), {})
    saved.path(2).write_text("not a folder")
    variables = plain(0)
    assert saved.restore(variables)["step"] == 1
    assert variables["model/v"].numpy().tolist() == plain(1)["model/v"].numpy().tolist()
    assert "is a file, not a folder" in caplog.text
    saved.discard_after(1)
    saved.path(2).write_text("once more")
    saved.discard_after(1)  # The earlier damaged file is replaced.
    saved.save(2, plain(2), {})
    assert saved.steps() == [1, 2]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"step": 1}'])
def test_a_damaged_record_of_the_best_loses_no_checkpoint(tmp_path, text, caplog):
    saved = saver(tmp_path, keep_last=1)
    saved.save(1, plain(1), {})
    saved.mark_best(1, "eval/top1", 0.5)
    (saved.directory / "best.json").write_text(text)
    saved.save(2, plain(2), {})
    saved.save(3, plain(3), {})
    assert saved.steps() == [1, 2, 3] and "best.json` is damaged" in caplog.text
    variables = plain(0)
    assert saved.restore(variables)["step"] == 3 and saved.best() is None
    saved.discard_after(3)
    saved.mark_best(3, "eval/top1", 0.6)
    assert saved.best()["step"] == 3 and saved.steps() == [3]


def test_a_lost_future_is_set_aside_not_deleted(tmp_path):
    saved = saver(tmp_path, keep_last=5)
    for step in (1, 2, 3):
        saved.save(step, plain(step), {})
    saved.mark_best(3, "eval/top1", 0.9)
    saved.discard_after(2)
    assert saved.steps() == [1, 2]
    assert (saved.directory / "damaged_000000003" / "manifest.json").exists()
    assert saved.best() is None  # Its checkpoint is no longer there to be used.
    saved.save(3, plain(30), {})
    assert saved.steps() == [1, 2, 3]


def test_a_write_that_was_killed_is_not_listed_and_does_not_disturb(tmp_path):
    saved = saver(tmp_path)
    saved.save(1, plain(1), {})
    working = saved.directory / ".writing_step_000000002"
    working.mkdir()
    (working / "variables.index").write_text("half")
    assert saved.steps() == [1] and saved.restore(plain(0))["step"] == 1
    saved.save(2, plain(2), {})
    assert saved.restore(plain(0))["step"] == 2 and not working.exists()


def test_what_a_killed_write_left_is_named_and_removed_by_the_chief(tmp_path, caplog):
    saved = saver(tmp_path)
    saved.save(4, plain(4), {})
    rest = saved.directory / ".writing_step_000000007"  # A step not saved again.
    rest.mkdir()
    (rest / "variables.index").write_text("half")
    saver(tmp_path, writes=False).discard_after(4)
    assert rest.exists()
    saved.discard_after(4)
    assert not rest.exists() and f"`{rest}` is incomplete" in caplog.text
    assert saved.steps() == [4]


def test_on_an_object_store_the_manifest_makes_a_checkpoint_of_its_files(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(io_files, "is_remote", lambda path: True)
    saved, seen = saver(tmp_path), []
    write = io_files.write_json

    def looked_at(path, value):
        names = sorted(file.name for file in path.parent.iterdir())
        seen.append((saved.steps(), names))
        write(path, value)

    monkeypatch.setattr(io_files, "write_json", looked_at)
    half = saved.path(1)  # Of a write that was killed.
    half.mkdir(parents=True)
    (half / "variables.data-00000-of-00007").write_text("half")
    saved.save(1, plain(1), {})
    saved.save(2, plain(2), {})
    files = ["variables.data-00000-of-00001", "variables.index"]
    assert seen == [([], files), ([1], files)]
    assert [path.name for path in sorted(saved.directory.iterdir())] == [
        "step_000000001",
        "step_000000002",
    ]
    assert saved.restore(plain(0))["step"] == 2


def test_a_folder_without_manifest_is_logged_skipped_and_rewritten(tmp_path, caplog):
    saved = saver(tmp_path)
    for step in (1, 2, 3):
        saved.save(step, plain(step), {})
    for step in (1, 3):
        (saved.path(step) / "manifest.json").unlink()
    assert saved.steps() == [2]
    assert saved.restore(plain(0))["step"] == 2
    assert "step_000000003" in caplog.text and "manifest.json is missing" in caplog.text
    saved.discard_after(2)
    assert (saved.directory / "damaged_000000003").exists()
    saved.save(3, plain(30), {})
    assert saved.steps() == [2, 3] and saved.restore(plain(0))["step"] == 3
    for step in (4, 5, 6):
        saved.save(step, plain(step), {})
    assert not saved.path(1).exists()  # Removed with the old ones.


# Writing in the background.


def test_training_continues_while_a_thread_writes(tmp_path, monkeypatch):
    free = threading.Event()
    write = checkpoints.write_checkpoint

    def slowly(*arguments):
        assert free.wait(60)
        write(*arguments)

    monkeypatch.setattr(checkpoints, "write_checkpoint", slowly)
    saved = Checkpoints(tmp_path)
    variables = plain(1)
    saved.save(1, variables, {})  # Returns while the disk is busy.
    assert saved.steps() == []
    variables["model/v"].assign(np.full(3, 77.0))
    free.set()
    saved.wait()
    saved.restore(variables)
    assert variables["model/v"].numpy().tolist() == [1, 1, 1]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_full_disk_is_reported_and_earlier_checkpoints_stay(tmp_path, asynchronous):
    saved = Checkpoints(tmp_path, asynchronous=asynchronous)
    saved.save(1, plain(1), {})
    saved.wait()
    large = {"model/v": keras.Variable(np.zeros(200_000, np.float32))}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=r"could not be.*: \[1\]\. Make room"):
            saved.save(2, large, {})
            saved.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in saved.directory.iterdir()] == ["step_000000001"]
    assert saved.restore(plain(0))["step"] == 1
    saved.save(2, plain(2), {})  # With room again it goes on.
    saved.wait()
    assert saved.steps() == [1, 2]


def test_an_error_of_any_kind_in_the_thread_is_reported_by_the_next_save(tmp_path):
    saved = Checkpoints(tmp_path)
    saved.save(1, plain(1), {"state": object()})  # No JSON.
    with pytest.raises(OSError, match=r"could not be written.*Fix that and start the"):
        saved.save(2, plain(2), {})
    saved.save(3, plain(3), {})
    saved.wait()
    assert saved.steps() == [3]


def test_what_cannot_even_be_cleared_away_is_reported(tmp_path):
    saved = Checkpoints(tmp_path)
    saved.directory.write_text("a file where the folder should be")
    saved.save(1, plain(1), {})
    with pytest.raises(OSError, match="could not be written"):
        saved.wait()


# Restoring.


def test_a_folder_without_checkpoints_restores_nothing(tmp_path):
    assert Checkpoints(tmp_path / "new").restore(plain(0)) is None


def test_another_model_is_rejected_and_nothing_is_assigned(tmp_path):
    saved = saver(tmp_path)
    model, optimizer = parts()
    saved.save(1, variables_of(model, optimizer), {})
    for other in (
        variables_of(*parts(model=small.linear(4))),
        variables_of(*parts(MOMENTUM)),
        variables_of(*parts(model=small.small_vit())),
    ):
        before = numbers(other)
        with pytest.raises(ValueError, match="`model_dir` holds another model or opt"):
            saved.restore(other)
        assert numbers(other) == before


def test_the_committed_checkpoint_of_format_1_restores_model_and_optimizer():
    images = keras.Input((4,), name="images")
    logits = keras.layers.Dense(3, name="head")(images)
    model = keras.Model(images, logits)
    optimizer = Optimizer(
        Adam(first_moment_dtype="bfloat16"), SCHEDULE, average_decay=0.9
    )
    optimizer.build(model.trainable_variables)
    step = keras.Variable(0, dtype="int64")
    variables = {**variables_of(model, optimizer), "run/global_step": step}
    state = Checkpoints(FORMAT_1).restore(variables)
    assert state == {"images_seen": 40, "core_seconds": 1.5, "seed": 3, "step": 5}
    kernel = np.arange(12).reshape(4, 3) / 8
    np.testing.assert_array_equal(model.get_layer("head").kernel, kernel)
    assert int(optimizer.iterations) == 5 and int(step) == 5
