"""Served models are found by name and version, and their calls are checked."""
# SPDX-License-Identifier: Apache-2.0

import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.export import runs
from vit_scaling.export import saved_model
from vit_scaling.export.served_models import RequestError, ServedModels
from vit_scaling.run_record import RunRecord


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "plain"
    record = RunRecord(runs.CLASS_NAMES, runs.IMAGE_SIZE)
    saved_model.export_model(runs.small_model(), folder, record)
    return folder


def test_a_saved_model_its_versions_and_a_kit_are_served(export, tmp_path):
    assert ServedModels(export, name="birds").find("birds").version == 1
    for place in ("kit/a/2", "kit/a/10", "kit/b/1", "kit/notes"):
        shutil.copytree(export, tmp_path / place)
    (tmp_path / "kit/models.config").write_text("")
    versions = ServedModels(tmp_path / "kit/a", name="birds")
    assert versions.names == ["birds"] and versions.find("birds").version == 10
    kit = ServedModels(tmp_path / "kit", name="unused")
    assert kit.names == ["a", "b"] and kit.find("a", 10).name == "a"


@pytest.mark.parametrize(("name", "version"), [("cats", None), ("birds", 7)])
def test_unknown_models_and_versions_are_not_found(export, name, version):
    models = ServedModels(export, name="birds")
    with pytest.raises(RequestError, match=r"Servable not found.*birds:1") as caught:
        models.find(name, version)
    assert caught.value.code == "NOT_FOUND"


def test_a_folder_without_an_export_says_how_to_write_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="vit-scaling export"):
        ServedModels(tmp_path / "nowhere", name="vit")


IMAGES = np.zeros((1, *runs.IMAGE_SIZE, 3), np.float32)


@pytest.mark.parametrize(
    ("signature", "inputs", "message"),
    [
        ("none", {}, r'"none" not found; the model has serving_bytes, serving_default'),
        ("", {"images": IMAGES}, r"inputs are \['image_bytes'\]; received"),
        ("serving_floats", {"images": IMAGES.astype("float64")}, "must be float32"),
        ("serving_floats", {"images": IMAGES[0]}, "must have shape"),
        ("", {"image_bytes": np.array([b"no image"])}, "image 0 of the request"),
    ],
)
def test_calls_that_do_not_fit_are_invalid(export, signature, inputs, message):
    model = ServedModels(export, name="vit").find("vit")
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    with pytest.raises(RequestError, match=message) as caught:
        model.call(signature, tensors)
    assert caught.value.code == "INVALID_ARGUMENT"
