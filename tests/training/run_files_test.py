"""The files from which a run can be rebuilt, served and repeated."""
# SPDX-License-Identifier: Apache-2.0

import json
import resource

import numpy as np
import pytest

import vit_scaling
from tests.training import small
from vit_scaling import run_record
from vit_scaling.training import run_files

RECORD = run_record.RunRecord(
    ("a", "b"), (8, 8), seed=3, parameters=1930, versions=run_files.versions()
)


def test_the_model_is_rebuilt_from_its_file_alone(tmp_path):
    model = small.small_vit(head="map", dropout=0.1)
    run_files.write_run_files(tmp_path / "run", model, RECORD, {})
    again = run_files.read_model(tmp_path / "run")
    assert [v.path for v in again.variables] == [v.path for v in model.variables]
    images = small.digits()[0][:2]
    for there, here in zip(model.variables, again.variables, strict=True):
        here.assign(there.numpy())
    np.testing.assert_array_equal(
        model(images, training=False), again(images, training=False)
    )


def test_a_run_writes_its_model_record_and_texts(tmp_path):
    texts = {"config.gin": "A = 1\n", "flags.txt": "--seed=3\n"}
    run_files.write_run_files(tmp_path, small.linear(), RECORD, texts)
    assert run_record.load_run_record(tmp_path) == RECORD
    assert RECORD.versions["vit_scaling"] == vit_scaling.__version__
    assert (tmp_path / "config.gin").read_text() == "A = 1\n"
    assert (tmp_path / "flags.txt").read_text() == "--seed=3\n"
    json.loads((tmp_path / "model.json").read_text())


def test_a_full_disk_leaves_what_was_there_and_is_reported_with_what_to_do(tmp_path):
    run_files.write_texts(tmp_path, {"config.gin": "A = 1\n"})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match=r"`config.gin` could not.*Make room"):
            run_files.write_texts(tmp_path, {"config.gin": "A = 2\n" * 1000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "config.gin").read_text() == "A = 1\n"


def test_reading_a_folder_that_is_not_a_run_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="`model_dir` must be the folder of a"):
        run_files.read_model(tmp_path)


def test_each_configuration_that_is_replaced_is_numbered_once(tmp_path):
    run_files.number_config(tmp_path)  # Nothing to keep yet.
    for text in ("A = 1\n", "A = 1\n", "A = 2\n"):
        run_files.write_texts(tmp_path, {"config.gin": text})
        run_files.number_config(tmp_path)
    copies = sorted(tmp_path.glob("config_*"))
    assert [path.name for path in copies] == ["config_0001.gin", "config_0002.gin"]
    assert [path.read_text() for path in copies] == ["A = 1\n", "A = 2\n"]
