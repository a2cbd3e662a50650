"""TensorBoard shows every step once, and what the run trains on, with what settings."""
# SPDX-License-Identifier: Apache-2.0

import time

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator,
)
from tensorboard.plugins.hparams import plugin_data_pb2

from tests.training import small
from vit_scaling import runs
from vit_scaling.training.checkpoint_files import checkpoint_folder, saved_steps
from vit_scaling.training.logs import RunLog, read_metrics
from vit_scaling.training.options import RunOptions
from vit_scaling.training.strategy import make_strategy

SETTINGS = {"Experiment.batch_size": ("BATCH_SIZE", "8"), "vit.head": ("HEAD", "'gap'")}


def points(folder, tag):
    """Return [(step, value)] of a tag as TensorBoard reads it."""
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    if tag not in accumulator.Tags()["tensors"]:
        return []
    return [(e.step, tf.make_ndarray(e.tensor_proto)) for e in accumulator.Tensors(tag)]


def steps(folder, tag):
    return [step for step, _ in points(folder, tag)]


def train(folder):
    options = RunOptions(
        steps_per_loop=1, checkpoint_every_steps=2, eval_every_steps=2, keep_last=None
    )
    return runs.train(
        small.experiment(),
        options,
        model_dir=folder,
        strategy=make_strategy(),
        texts=lambda: {"config.gin": "BATCH_SIZE = 8\n"},
        settings=SETTINGS,
    )


def test_a_restart_leaves_no_repeated_and_no_later_points(tmp_path):
    train(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    for step in saved_steps(checkpoints):
        if step > 2:  # As if the run had been killed at step 3.
            tf.io.gfile.rmtree(str(checkpoint_folder(checkpoints, step)))
    time.sleep(1.1)  # Event files are read in the order of their seconds.
    log = RunLog(tmp_path)
    log.tensorboard.restart(2, evaluates=True)
    assert steps(tmp_path / "train", "loss") == [1, 2]
    assert steps(tmp_path / "eval", "top1") == []
    train(tmp_path)
    assert steps(tmp_path / "train", "loss") == [1, 2, 3, 4, 5, 6]
    assert steps(tmp_path / "eval", "top1") == [2, 4, 6]


def test_settings_configuration_images_and_training_accuracy_are_shown(tmp_path):
    train(tmp_path)
    folder = tmp_path / "train"
    ((_, text),) = points(folder, "config.gin")
    assert text.item().decode() == "    BATCH_SIZE = 8\n"
    ((_, encoded),) = points(folder, "training_images")
    images = np.stack([tf.io.decode_png(image).numpy() for image in encoded[2:]])
    batch = next(iter(small.experiment().train_data.dataset(batch_size=8, seed=0)))
    expected = (np.asarray(batch["images"]) + 1) / 2 * 255
    np.testing.assert_allclose(images, expected, atol=1)
    accuracy = [float(value) for _, value in points(folder, "accuracy")]
    rows = read_metrics(tmp_path, "train")
    assert accuracy == pytest.approx([row["accuracy"] for row in rows])
    assert {value * 8 % 1 for value in accuracy} == {0.0}  # Of 8 images.
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    content = accumulator.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    shown = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert shown.hparams["BATCH_SIZE"].number_value == 8
    assert shown.hparams["HEAD"].string_value == "'gap'"
