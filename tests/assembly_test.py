"""A run is assembled without a write; its record describes the evaluation's images."""
# SPDX-License-Identifier: Apache-2.0

import types

import pytest

from tests.training import small
from vit_scaling.assembly import _check_averages, build_run, make_run_record
from vit_scaling.data.preprocessing import PaddedCrop
from vit_scaling.image_preprocessing import (
    EVALUATION_PREPROCESSING,
    CentralCrop,
    Resize,
    SquashAndCrop,
)
from vit_scaling.training.options import RunOptions
from vit_scaling.training.strategy import make_strategy


def test_an_assembled_run_trains_without_what_train_writes(tmp_path):
    options = RunOptions(evaluate=False, checkpoint_every_steps=None)
    run = build_run(
        small.experiment(), options, model_dir=tmp_path, strategy=make_strategy()
    )
    assert not list(tmp_path.iterdir())
    run.restore()
    assert run.train() == {} and run.step == run.total_steps == 6
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize("peak", [None, 1e9])
def test_operations_are_counted_if_a_peak_is_known(tmp_path, peak):
    options = RunOptions(peak_flops_per_core=peak)
    run = build_run(
        small.experiment(), options, model_dir=tmp_path, strategy=make_strategy()
    )
    report = run.state.progress.report(0)
    assert ("share_of_peak" in report) is (peak is not None)


@pytest.mark.parametrize(
    ("crop", "pixels"),
    [
        (CentralCrop(), 55),
        (CentralCrop(50), 50),
        (CentralCrop(ratio=7 / 6), 56),
        (Resize(), None),
        (SquashAndCrop(), 55),
        (SquashAndCrop(64), 64),
    ],
)
def test_facts_tell_servers_an_images_size_before_the_crop(crop, pixels):
    made = small.experiment()
    made.eval_data.preprocess, made.eval_data.image_size = crop, 48
    record = make_run_record(made, small.linear(), RunOptions())
    assert record.resize == pixels
    assert EVALUATION_PREPROCESSING[record.preprocess] is type(crop)


@pytest.mark.parametrize("unknown", [PaddedCrop(), lambda encoded, size, seed: None])
def test_facts_do_not_guess_what_an_unknown_function_does_to_images(unknown):
    made = small.experiment()
    made.eval_data.preprocess, made.eval_data.image_size = unknown, 48
    record = make_run_record(made, small.linear(), RunOptions())
    assert record.preprocess is None and record.resize is None


def test_averages_that_are_not_kept_are_rejected():
    _check_averages(types.SimpleNamespace(average_decay=0.9))
    with pytest.raises(ValueError, match="bind the optimizer's `average_decay`"):
        _check_averages(types.SimpleNamespace(average_decay=None))
