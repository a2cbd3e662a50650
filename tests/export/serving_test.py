"""The serving kit is whole, and real clients get the model's answers through it."""
# SPDX-License-Identifier: Apache-2.0

import importlib.metadata
import json
import os

import grpc
import numpy as np
import pytest
import tensorflow as tf
import yaml
from google.protobuf import text_format
from tensorflow_serving.apis import (
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from tests.export import runs
from vit_scaling.commands import export, predict
from vit_scaling.export import clients, development_server, prediction
from vit_scaling.export.served_models import ServedModels


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """A kit that the command wrote, version 1."""
    folder = tmp_path_factory.mktemp("serving")
    runs.write_run(folder / "run", runs.small_model())
    flags = [f"--model_dir={folder}/run", f"--output_dir={folder}/kit"]
    assert export.main([*flags, "--serving_kit=vit"]) == 0
    return folder / "kit"


@pytest.fixture(scope="module")
def models(kit):
    return ServedModels(kit, name="unused")


@pytest.fixture(scope="module")
def grpc_address(models):
    with development_server.serve_grpc(models) as address:
        yield address


@pytest.fixture(scope="module")
def rest_address(models):
    with development_server.serve_rest(models) as address:
        yield address


def test_kit_has_every_file(kit):
    files = sorted(str(path.relative_to(kit)) for path in kit.rglob("*.*"))
    assert "vit/1/saved_model.pb" in files
    assert "vit/1/variables/variables.index" in files
    assert (kit / "vit/1/assets.extra/tf_serving_warmup_requests").is_file()
    assert os.access(kit / "serve.sh", os.X_OK)
    assert "compose.yaml" in (kit / "serve.sh").read_text()


def test_compose_file_pins_the_server_and_names_files_of_the_kit(kit):
    service = yaml.safe_load((kit / "compose.yaml").read_text())["services"]["serving"]
    image, _, tag = service["image"].partition(":")
    assert image == "tensorflow/serving"
    # The stubs that the tests speak are of the same release.
    version = importlib.metadata.version("tensorflow-serving-api")
    assert tag == f"${{TF_SERVING_TAG:-{version}}}"
    assert service["volumes"] == [".:/models:ro"]
    assert service["ports"] == ["8500:8500", "8501:8501"]
    assert service["environment"] == {"TF_ENABLE_ONEDNN_OPTS": "1"}
    flags = dict(flag.split("=") for flag in service["command"] if "=" in flag)
    for name in ("--model_config_file", "--batching_parameters_file"):
        assert (kit / flags[name].removeprefix("/models/")).is_file()


def test_models_config_is_what_the_server_parses(kit):
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((kit / "models.config").read_text(), config)
    [entry] = config.model_config_list.config
    assert (entry.name, entry.base_path) == ("vit", "/models/vit")
    assert entry.model_platform == "tensorflow"


def test_batching_parameters_agree_with_each_other(kit):
    text = (kit / "batching_parameters.txt").read_text()
    allowed = [
        int(line.split(": ")[1])
        for line in text.splitlines()
        if line.startswith("allowed_batch_sizes")
    ]
    # The server's rule: ascending, and the last one is the largest batch.
    assert allowed == sorted(set(allowed))
    assert f"max_batch_size {{ value: {allowed[-1]} }}" in text


def test_warmup_requests_are_answered(kit, models, grpc_address):
    path = str(kit / "vit/1/assets.extra/tf_serving_warmup_requests")
    channel = grpc.insecure_channel(grpc_address.removeprefix("grpc://"))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    seen = set()
    for record in tf.data.TFRecordDataset(path):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        response = stub.Predict(request)
        [value] = request.inputs.values()
        batch = value.tensor_shape.dim[0].size
        for value in response.outputs.values():
            assert value.tensor_shape.dim[0].size == batch
        seen.add((request.model_spec.signature_name, batch))
    signatures = models.find("vit").signature_defs.keys() - {"__saved_model_init_op"}
    batches = (1, 2, 4, 8, 16, 32)
    assert seen == {(name, n) for name in signatures for n in batches}
    channel.close()


def test_grpc_answers_every_output_bit_for_bit(kit, grpc_address):
    images = np.random.default_rng(0).uniform(-1, 1, (3, *runs.IMAGE_SIZE, 3))
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "vit"
    request.model_spec.signature_name = "serving_floats"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(images.astype(np.float32)))
    with grpc.insecure_channel(grpc_address.removeprefix("grpc://")) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        response = stub.Predict(request)
    loaded = tf.saved_model.load(str(kit / "vit" / "1"))
    direct = loaded.signatures["serving_floats"](images=tf.constant(images, tf.float32))
    assert set(response.outputs) == set(direct)
    for name, value in response.outputs.items():
        np.testing.assert_array_equal(tf.make_ndarray(value), direct[name])


@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_clients_answer_what_the_saved_model_does(kit, request, kind):
    address = request.getfixturevalue(f"{kind}_address")
    files = [runs.image_file(60, 90, seed=number) for number in range(3)]
    names, values = clients.make_server_predictor(address)(files)
    expected_names, expected = prediction.make_local_predictor(kit / "vit")(files)
    assert names == expected_names
    np.testing.assert_allclose(values, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_predict_command_asks_the_server(tmp_path, capsys, request, kind):
    address = request.getfixturevalue(f"{kind}_address")
    (tmp_path / "a.png").write_bytes(runs.image_file(60, 60))
    flags = [f"--server={address}", "--images", f"{tmp_path}/a.png"]
    capsys.readouterr()
    assert predict.main([*flags, "--json", "--version=1"]) == 0
    [answer] = json.loads(capsys.readouterr().out)["predictions"]
    assert sorted(answer["classes"]) == sorted(runs.CLASS_NAMES)
    assert predict.main([*flags, "--model=unknown"]) == 1
    assert "Servable not found" in capsys.readouterr().err
    (tmp_path / "b.png").write_bytes(runs.image_file(60, 60)[:200])
    assert predict.main([*flags, f"{tmp_path}/b.png"]) == 1
    message = capsys.readouterr().err
    assert "1 of 2 images failed" in message
    assert f"{tmp_path}/b.png: The model refused the images" in message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            np.zeros((1, *runs.IMAGE_SIZE, 3), np.float64),
            "must be float32; received float64",
        ),
        (np.zeros((*runs.IMAGE_SIZE, 3), np.float32), "Input 'images' must have shape"),
        (np.zeros((1, 8, 8, 3), np.float32), "Input 'images' must have shape"),
    ],
)
def test_requests_of_wrong_type_or_rank_are_refused(grpc_address, value, message):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "vit"
    request.model_spec.signature_name = "serving_floats"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(value))
    with grpc.insecure_channel(grpc_address.removeprefix("grpc://")) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert message in caught.value.details()
