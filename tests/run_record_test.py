"""The record of a run: written, read back, and read as older versions wrote it."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json

import pytest

from vit_scaling.run_record import (
    FORMAT_VERSION,
    RunRecord,
    find_run_record,
    load_run_record,
    save_run_record,
)

# As the code before format versions wrote it.
UNVERSIONED = """{
 "loss": "sigmoid_cross_entropy",
 "seed": 5,
 "evaluates_averages": true,
 "class_names": [
  "ant",
  "b\\u00e9e"
 ],
 "train_images": 1754,
 "value_range": [
  0.0,
  1.0
 ],
 "preprocess": "squash_and_crop",
 "resize": 55,
 "image_size": [
  48,
  48
 ],
 "parameters": 1930,
 "versions": {
  "vit_scaling": "0.9.0",
  "tensorflow": "2.19.0",
  "keras": "3.15.1",
  "python": "3.12.3"
 }
}
"""
RECORD = RunRecord(
    class_names=("ant", "bée"),
    image_size=(48, 48),
    value_range=(0.0, 1.0),
    loss="sigmoid_cross_entropy",
    preprocess="squash_and_crop",
    resize=55,
    seed=5,
    evaluates_averages=True,
    train_images=1754,
    parameters=1930,
    versions={
        "vit_scaling": "0.9.0",
        "tensorflow": "2.19.0",
        "keras": "3.15.1",
        "python": "3.12.3",
    },
)


def test_a_saved_record_is_loaded_unchanged(tmp_path):
    save_run_record(tmp_path, RECORD)
    assert load_run_record(tmp_path) == RECORD
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["format_version"] == FORMAT_VERSION


def test_a_record_keeps_the_range_of_each_channel_and_the_filter(tmp_path):
    low, high = (-2.1, -2.0, -1.8), (2.2, 2.4, 2.6)
    record = dataclasses.replace(
        RECORD,
        value_range=(low, high),
        interpolation="bicubic",
        crop_to_even=True,
    )
    save_run_record(tmp_path, record)
    assert load_run_record(tmp_path) == record


def test_a_record_without_a_format_version_is_read(tmp_path):
    (tmp_path / "run.json").write_text(UNVERSIONED)
    assert load_run_record(tmp_path) == RECORD


def test_the_first_versions_records_had_fewer_fields(tmp_path):
    fields = {"class_names": None, "image_size": 32, "loss": "my_own_loss", "seed": 1}
    (tmp_path / "run.json").write_text(json.dumps(fields))
    record = load_run_record(tmp_path)
    assert record.class_names == () and record.image_size == (32, 32)
    assert record.loss == "my_own_loss" and not record.evaluates_averages
    assert record.train_images is None


def test_a_newer_format_is_rejected_by_its_version(tmp_path):
    fields = {"format_version": FORMAT_VERSION + 6, "classes": ["of another format"]}
    (tmp_path / "run.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"run\.json has format version 7, newer than"):
        load_run_record(tmp_path)


def test_a_folder_without_a_record_is_named(tmp_path):
    assert find_run_record(tmp_path) is None
    with pytest.raises(FileNotFoundError, match="`model_dir` must be the folder of a"):
        load_run_record(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"class_names": ["a"', r"run\.json is not valid JSON"),
        ('{"class_names": ["a"]}', r"run\.json lacks image_size"),
        ('{"class_names": [], "image_size": 0}', r"run\.json: `image_size` must be"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, text, message):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_run_record(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image_size", (0, 4), "`image_size` must be"),
        ("preprocess", "squash", "`preprocess` must be one of"),
        ("resize", 20, "`resize` must be at least"),
        ("value_range", (1.0, 1.0), "`value_range` must be"),
        ("value_range", ((0.0, 0.0, 1.0), (1.0,) * 3), "`value_range` must be"),
        ("interpolation", "area", "`interpolation` must be one of"),
    ],
)
def test_invalid_fields_are_rejected(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECORD, **{field: value})
