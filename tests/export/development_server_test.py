"""The stand-in server speaks TensorFlow Serving's protocols to real clients."""
# SPDX-License-Identifier: Apache-2.0

import json
import socket
import urllib.error
import urllib.request

import grpc
import pytest
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.export import runs
from vit_scaling.export import development_server, saved_model
from vit_scaling.export.served_models import ServedModels
from vit_scaling.run_record import RunRecord


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "5"
    record = RunRecord(runs.CLASS_NAMES, runs.IMAGE_SIZE)
    saved_model.export_model(runs.small_model(), folder, record)
    return ServedModels(folder, name="vit")


@pytest.fixture(scope="module")
def channel(models):
    with (
        development_server.serve_grpc(models) as address,
        grpc.insecure_channel(address.removeprefix("grpc://")) as channel,
    ):
        yield channel


@pytest.fixture(scope="module")
def rest(models):
    with development_server.serve_rest(models) as address:
        yield address


def ask(url, body=None):
    """Return status and decoded JSON of a GET, or of a POST of `body`."""
    data = None if body is None else body.encode()
    try:
        with urllib.request.urlopen(url, data) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_metadata_names_every_signature(channel, rest):
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "vit"
    request.metadata_field.append("signature_def")
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    response = stub.GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    outputs = {name: set(d.outputs) for name, d in signatures.signature_def.items()}
    best = {"top_classes", "top_indices", "top_probabilities"}
    everything = best | {"logits", "probabilities", "features", "tokens"}
    assert outputs["serving_default"] == best
    assert outputs["serving_bytes"] == outputs["serving_floats"] == everything
    assert outputs["serving_features"] == {"features"}
    status, metadata = ask(f"{rest}/v1/models/vit/metadata")
    assert status == 200 and metadata["model_spec"] == {"name": "vit", "version": "5"}
    listed = metadata["metadata"]["signature_def"]["signature_def"]
    assert set(listed) == set(signatures.signature_def)


def test_status_is_available(channel, rest):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "vit"
    response = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request)
    [version] = response.model_version_status
    assert (version.version, version.state) == (5, version.AVAILABLE)
    status, value = ask(f"{rest}/v1/models/vit")
    [version] = value["model_version_status"]
    assert status == 200 and version["state"] == "AVAILABLE"


def test_outputs_can_be_filtered_and_unknown_ones_are_rejected(channel):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "vit"
    value = request.inputs["image_bytes"]
    value.dtype = 7  # DT_STRING, written without TensorFlow as other clients do.
    value.tensor_shape.dim.add().size = 1
    value.string_val.append(runs.image_file(40, 40))
    request.output_filter.append("top_classes")
    response = stub.Predict(request)
    assert set(response.outputs) == {"top_classes"}
    names = {text.decode() for text in response.outputs["top_classes"].string_val}
    assert names == set(runs.CLASS_NAMES)
    request.output_filter.append("nothing")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "output_filter has ['nothing']" in caught.value.details()


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/models/cat:predict", '{"instances": [1]}', 404, "Servable not found"),
        ("/v2/models/vit:predict", "{}", 404, "Malformed request"),
        ("/v1/models/vit:predict", "{", 400, "JSON Parse error"),
        ("/v1/models/vit:predict", "[]", 400, "must be a JSON object"),
        ("/v1/models/vit:predict", '{"instances": ["x"]}', 400, "image 0 of the"),
        ("/v1/models/cat", None, 404, "Servable not found"),
    ],
)
def test_rest_errors_have_a_status_and_a_text(rest, path, body, status, message):
    code, value = ask(f"{rest}{path}", body)
    assert code == status and message in value["error"]


@pytest.mark.parametrize("serve", ["serve_grpc", "serve_rest"])
def test_a_port_in_use_is_an_error(models, serve):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(OSError, match=r"(?i)address already in use|listened"),
            getattr(development_server, serve)(models, port=port),
        ):
            pass
