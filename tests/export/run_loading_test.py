"""A run read from its folder gives its model back, or says what is wrong with it."""
# SPDX-License-Identifier: Apache-2.0

import json

import numpy as np
import pytest

from tests.export import runs
from vit_scaling.export import run_loading
from vit_scaling.run_record import RunRecord


def test_run_gives_its_model_back(tmp_path):
    model = runs.small_model()
    runs.write_run(tmp_path, model)
    read, record = run_loading.load_run(tmp_path)
    for mine, its in zip(model.variables, read.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), its.numpy())
    assert record == RunRecord(
        runs.CLASS_NAMES,
        runs.IMAGE_SIZE,
        runs.STEP,
        loss="sigmoid_cross_entropy",
        weights="last",
    )


@pytest.mark.parametrize("options", [{}, {"dropout": 0.1}, {"head": "token"}])
def test_low_precision_run_is_read_in_float32(tmp_path, options):
    model = runs.small_model("mixed_bfloat16", **options)
    runs.write_run(tmp_path, model)
    exact, _ = run_loading.load_run(tmp_path)
    assert run_loading.computes_in_float32(exact)
    as_run, _ = run_loading.load_run(tmp_path, float32=False)
    assert not run_loading.computes_in_float32(as_run)
    images = np.random.default_rng(0).uniform(-1, 1, (2, *runs.IMAGE_SIZE, 3))
    reference = runs.small_model("float32", **options)
    reference.set_weights(model.get_weights())
    np.testing.assert_array_equal(exact(images), reference(images))
    np.testing.assert_array_equal(as_run(images), model(images))


def test_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No model\.json in"):
        run_loading.load_run(tmp_path)


def test_damaged_record_is_named(tmp_path):
    runs.write_run(tmp_path, runs.small_model())
    (tmp_path / "run.json").write_text('{"class_names": ["a"')
    with pytest.raises(ValueError, match=r"run\.json is not valid JSON"):
        run_loading.load_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"class_names": ["a"]}))
    with pytest.raises(ValueError, match="lacks image_size"):
        run_loading.load_run(tmp_path)


def test_names_that_disagree_with_the_logits_are_refused(tmp_path):
    runs.write_run(tmp_path, runs.small_model(), class_names=["ant", "bee"])
    with pytest.raises(ValueError, match="4 logits, the record names 2 classes"):
        run_loading.load_run(tmp_path)


def test_run_without_names_numbers_its_classes(tmp_path):
    runs.write_run(tmp_path, runs.small_model(), class_names=None)
    assert run_loading.load_run(tmp_path)[1].class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image_size", (0, 4), "`image_size` must be"),
        ("preprocess", "squash", "`preprocess` must be one of"),
        ("resize", 20, "`resize` must be at least"),
        ("value_range", (1.0, 1.0), "`value_range` must be"),
    ],
)
def test_records_without_sense_are_refused(field, value, message):
    fields = {"class_names": ("a",), "image_size": (32, 32), field: value}
    with pytest.raises(ValueError, match=message):
        RunRecord(**fields)


def test_run_with_a_loss_that_exports_do_not_know_is_not_exported(tmp_path):
    runs.write_run(tmp_path, runs.small_model(), loss="hinge")
    model, record = run_loading.load_run(tmp_path)
    with pytest.raises(ValueError, match=r"`loss` must be one of .* received 'hinge'"):
        run_loading.check_exportable(model, record)


def test_run_whose_images_were_prepared_in_an_unknown_way_needs_a_preprocessing(
    tmp_path,
):
    runs.write_run(tmp_path, runs.small_model(), preprocess=None)
    model, record, _ = run_loading.load_for_export(tmp_path)
    with pytest.raises(ValueError, match="--preprocess, one of central_crop"):
        run_loading.check_exportable(model, record)
    model, record, _ = run_loading.load_for_export(tmp_path, preprocess="resize")
    run_loading.check_exportable(model, record)
