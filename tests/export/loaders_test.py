"""TensorFlow's other loaders read the SavedModel: the C API and saved_model_cli."""
# SPDX-License-Identifier: Apache-2.0

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.export import c_api, runs
from vit_scaling.export import saved_model
from vit_scaling.run_record import RunRecord

NUMBERS = ("logits", "probabilities", "features", "tokens", "top_indices")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loaders") / "served"
    record = RunRecord(runs.CLASS_NAMES, runs.IMAGE_SIZE)
    saved_model.export_model(runs.small_model(), folder, record)
    return folder


def tensor_names(folder, signature, key):
    """The signature's tensors by name, read from the protocol buffer."""
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel.FromString(
        (folder / "saved_model.pb").read_bytes()
    )
    found = proto.meta_graphs[0].signature_def[signature]
    return {
        "input": found.inputs[key].name,
        "outputs": {name: found.outputs[name].name for name in NUMBERS},
    }


def run_c_api(folder, request, input_file, tmp_path):
    (tmp_path / "request.json").write_text(json.dumps(request))
    library = pathlib.Path(tf.__file__).parent / "libtensorflow_cc.so.2"
    command = [
        sys.executable,
        c_api.__file__,
        library,
        folder,
        tmp_path / "request.json",
        input_file,
        tmp_path / "outputs.npz",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_c_api_answers_floats_bit_for_bit(served, tmp_path):
    images = np.random.default_rng(0).uniform(-1, 1, (2, *runs.IMAGE_SIZE, 3))
    images = images.astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    request = tensor_names(served, "serving_floats", "images")
    done = run_c_api(served, request, tmp_path / "images.npy", tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = tf.saved_model.load(str(served))
    expected = loaded.signatures["serving_floats"](images=tf.constant(images))
    with np.load(tmp_path / "outputs.npz") as outputs:
        assert sorted(outputs) == sorted(NUMBERS)
        for name in NUMBERS:
            np.testing.assert_array_equal(outputs[name], expected[name])


def test_c_api_answers_bytes_and_names_what_is_no_image(served, tmp_path):
    request = tensor_names(served, "serving_bytes", "image_bytes")
    content = runs.image_file(70, 90, format="JPEG")
    (tmp_path / "a.jpg").write_bytes(content)
    done = run_c_api(served, request, tmp_path / "a.jpg", tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = tf.saved_model.load(str(served))
    expected = loaded.signatures["serving_bytes"](image_bytes=tf.constant([content]))
    with np.load(tmp_path / "outputs.npz") as outputs:
        np.testing.assert_array_equal(outputs["logits"], expected["logits"])
    (tmp_path / "b.jpg").write_bytes(b"no image")
    done = run_c_api(served, request, tmp_path / "b.jpg", tmp_path)
    assert done.returncode != 0
    assert "image 0 of the request (8 bytes) is of another format" in done.stderr


@pytest.mark.slow  # Two processes that import all of TensorFlow.
def test_saved_model_cli_shows_and_runs_the_signatures(served, tmp_path):
    images = np.zeros((2, *runs.IMAGE_SIZE, 3), np.float32)
    np.save(tmp_path / "images.npy", images)
    cli = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
    place = ["--dir", str(served), "--tag_set", "serve"]
    shown = subprocess.run(
        [*cli, "show", *place, "--signature_def", "serving_bytes"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "inputs['image_bytes'] tensor_info:\n      dtype: DT_STRING" in shown
    assert "outputs['logits'] tensor_info:\n      dtype: DT_FLOAT" in shown
    assert "outputs['top_classes'] tensor_info:\n      dtype: DT_STRING" in shown
    inputs = f"--inputs=images={tmp_path}/images.npy"
    where = f"--outdir={tmp_path}"
    subprocess.run(
        [*cli, "run", *place, "--signature_def", "serving_floats", inputs, where],
        capture_output=True,
        check=True,
    )
    loaded = tf.saved_model.load(str(served))
    expected = loaded.signatures["serving_floats"](images=tf.constant(images))
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), expected["logits"])
