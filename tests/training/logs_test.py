"""Records on disk and lines on the screen: complete, readable, last one wins."""
# SPDX-License-Identifier: Apache-2.0

import io
import json
import resource

import numpy as np
import pytest
import tensorflow as tf

from vit_scaling.training.logs import (
    METRICS_FILE,
    RunLog,
    check_logged_steps_are_saved,
    read_metrics,
)


def tensorboard_scalars(folder):
    """Return {(tag, step): value} of the event files in a folder."""
    found = {}
    for file in folder.glob("events.*"):
        for raw in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(raw.numpy())
            for value in event.summary.value:
                found[value.tag, event.step] = tf.make_ndarray(value.tensor)
    return found


def test_a_record_reaches_both_the_json_lines_and_tensorboard(tmp_path):
    log = RunLog(tmp_path)
    log.record("train", 5, {"loss": np.float32(0.25), "note": "text", "seen": 40.0})
    log.record("eval", 5, {"top1": tf.constant(0.5)})
    train, evaluation = (
        json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()
    )
    assert train.pop("time") > 0
    expected = {"kind": "train", "step": 5, "loss": 0.25, "note": "text", "seen": 40}
    assert train == expected
    assert evaluation["top1"] == 0.5
    scalars = tensorboard_scalars(tmp_path / "train")
    assert scalars["loss", 5] == 0.25 and scalars["seen", 5] == 40
    assert ("note", 5) not in scalars
    assert tensorboard_scalars(tmp_path / "eval")["top1", 5] == 0.5


def test_values_that_are_not_finite_stay_valid_json(tmp_path):
    RunLog(tmp_path).record("train", 1, {"loss": float("nan"), "rate": float("inf")})
    (row,) = read_metrics(tmp_path)
    assert row["loss"] is None and row["rate"] is None


def test_the_last_record_of_a_step_is_the_one_that_is_read(tmp_path):
    log = RunLog(tmp_path)
    for step, loss in [(1, 3.0), (2, 2.0), (3, 1.5), (2, 2.0), (3, 1.0)]:
        log.record("train", step, {"loss": loss})
    log.record("eval", 2, {"top1": 0.5})
    rows = read_metrics(tmp_path, "train")
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 3), (2, 2), (3, 1)]
    assert len(read_metrics(tmp_path)) == 4


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
    RunLog(tmp_path).record("train", 1, {"loss": 2.0})
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"kind": "train", "st')
    assert [row["step"] for row in read_metrics(tmp_path)] == [1]


def test_a_run_continues_writing_after_a_line_cut_off_by_a_kill(tmp_path):
    (tmp_path / METRICS_FILE).write_text('{"kind": "train", "st')
    log = RunLog(tmp_path)
    log.record("train", 1, {"loss": 2.0})
    log.record("train", 2, {"loss": 1.0})
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]


def test_a_folder_without_records_reads_as_none(tmp_path):
    assert read_metrics(tmp_path) == []


def test_workers_other_than_the_chief_write_and_say_nothing(tmp_path):
    screen = io.StringIO()
    log = RunLog(tmp_path / "run", writes=False, screen=screen)
    log.record("train", 1, {"loss": 1.0})
    log.say("hello")
    assert not (tmp_path / "run").exists() and not screen.getvalue()


def test_lines_for_people_carry_step_loss_speed_and_time_to_go(tmp_path):
    screen = io.StringIO()
    log = RunLog(tmp_path, screen=screen)
    figures = {
        "loss": 1.5,
        "learning_rate": 8e-4,
        "images_per_second": 1234.5,
        "eta_seconds": 185.0,
    }
    log.say_train(250, 1000, figures)
    log.say_evaluation("eval", 250, {"top1": 0.75, "examples": 359.0}, 3.0)
    line, evaluation = screen.getvalue().splitlines()
    for part in ("250/1,000", "25%", "1.5000", "8.00e-04", "1,234.5 images/s", "3m05s"):
        assert part in line
    for part in ("eval", "top1 0.7500", "359 images", "3s"):
        assert part in evaluation


def test_the_share_of_the_peak_is_reported_where_it_is_known(tmp_path):
    screen = io.StringIO()
    figures = {
        "loss": 1.5,
        "learning_rate": 8e-4,
        "images_per_second": 1234.5,
        "share_of_peak": 0.4321,
        "eta_seconds": 185.0,
    }
    RunLog(tmp_path, screen=screen).say_train(250, 1000, figures)
    assert "images/s (43.2% of peak)  ETA" in screen.getvalue()


def test_a_log_that_cannot_be_written_is_reported_with_what_to_do(tmp_path):
    log = RunLog(tmp_path)
    log.record("train", 1, {"loss": 2.0})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / METRICS_FILE).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(OSError, match=r"log of the run could not.*Make room"):
            log.record("train", 2, {"loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.record("train", 3, {"loss": 0.5})
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 3]


def test_logged_steps_without_any_checkpoint_are_an_error(tmp_path):
    check_logged_steps_are_saved(tmp_path)  # A new folder.
    log = RunLog(tmp_path)
    log.record("few-shot", 50, {"top1": 0.5})
    check_logged_steps_are_saved(tmp_path)  # Nothing was trained here.
    log.record("train", 50, {"loss": 0.5})
    with pytest.raises(FileNotFoundError, match=r"step 50.*Put the checkpoints back"):
        check_logged_steps_are_saved(tmp_path)
    (tmp_path / "checkpoints" / "step_000000050").mkdir(parents=True)
    check_logged_steps_are_saved(tmp_path)  # Damaged: `restore` says so.
