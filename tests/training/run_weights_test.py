"""The weights of a trained run: last or averaged, of any step, without optimizer."""
# SPDX-License-Identifier: Apache-2.0

import pathlib

import numpy as np
import pytest

from tests.training import small
from tests.training.small_states import parts, randomize, saver
from vit_scaling.training.checkpoint_variables import variables_of
from vit_scaling.training.run_weights import read_weights, restore_model

FORMAT_1 = pathlib.Path(__file__).parent / "data" / "format_1"


def test_a_folder_without_checkpoints_is_no_trained_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="`model_dir` must hold a trained run"):
        restore_model(small.linear(), tmp_path)


def test_another_model_is_rejected(tmp_path):
    saver(tmp_path).save(1, variables_of(*parts()), {})
    with pytest.raises(ValueError, match=r"head/kernel is \(192, 3\) there and"):
        restore_model(small.linear(4), tmp_path)


def test_weights_are_restored_without_the_optimizer_averaged_or_not(tmp_path):
    model, optimizer = parts(average_decay=0.9)
    variables = variables_of(model, optimizer)
    randomize(variables, 5)
    saver(tmp_path).save(3, variables, {})
    weights = small.weights(model)
    means = {
        v.path: np.array(a.numpy())
        for v, a in zip(
            model.variables, optimizer.averages(model.trainable_variables), strict=True
        )
    }
    for averages, expected in ((False, weights), (True, means)):
        other = small.linear(3)
        assert restore_model(other, tmp_path, averages=averages) == 3
        for path, value in small.weights(other).items():
            np.testing.assert_array_equal(value, expected[path])


def test_averages_that_were_not_kept_are_not_made_up(tmp_path):
    saver(tmp_path).save(1, variables_of(*parts()), {})
    with pytest.raises(ValueError, match="`averages` asks for averaged weights"):
        restore_model(small.linear(3), tmp_path, averages=True)


def test_weights_that_are_not_trained_come_with_the_averages(tmp_path):
    model, optimizer = parts(model=small.small_vit(dropout=0.1), average_decay=0.9)
    variables = variables_of(model, optimizer)
    randomize(variables, 6)
    saver(tmp_path).save(1, variables, {})
    other = small.small_vit(dropout=0.1)
    restore_model(other, tmp_path, averages=True)
    there, here = small.weights(model), small.weights(other)
    frozen = [v.path for v in model.variables if not v.trainable]
    assert frozen
    for path in frozen:
        np.testing.assert_array_equal(here[path], there[path])


def test_a_step_that_is_not_there_is_reported_with_those_that_are(tmp_path):
    saver(tmp_path).save(2, variables_of(*parts()), {})
    with pytest.raises(FileNotFoundError, match=r"steps saved there: \[2\]"):
        restore_model(small.linear(3), tmp_path, step=1)


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    model, _ = parts()
    for step in (1, 2):
        randomize(variables_of(model), step)
        saver(tmp_path).save(step, variables_of(model), {})
        if step == 1:
            expected = small.weights(model)
    next(saver(tmp_path).path(2).glob("*.data-*")).write_bytes(b"")
    other = small.linear(3)
    assert restore_model(other, tmp_path) == 1
    for path, value in small.weights(other).items():
        np.testing.assert_array_equal(value, expected[path])


def test_averages_of_the_committed_checkpoint_of_format_1():
    kernel = np.arange(12).reshape(4, 3) / 8
    values, manifest = read_weights(FORMAT_1, averages=True)
    np.testing.assert_array_equal(values["model/head/kernel"], kernel / 2)
    assert manifest["step"] == 5
