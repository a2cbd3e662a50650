"""A stand-in for TensorFlow Serving during development: gRPC and REST of an export.

It has the official protocol, its messages and its checks of a request. Scheduling,
batching of several requests, and loading of new versions are TensorFlow Serving's.
"""
# SPDX-License-Identifier: Apache-2.0

import concurrent.futures
import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import grpc  # pip install "vit_scaling[serving]"
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from vit_scaling.export import rest_requests
from vit_scaling.export.model_metadata import make_metadata, make_status
from vit_scaling.export.served_models import RequestError, ServedModel, ServedModels

_HTTP_STATUS = {"NOT_FOUND": 404, "INVALID_ARGUMENT": 400}
_THREADS = 8  # Requests that are answered at the same time.


@contextlib.contextmanager
def serve_grpc(
    models: ServedModels, *, host: str = "127.0.0.1", port: int = 0
) -> Iterator[str]:
    """Context manager: serve PredictionService and ModelService; gives "grpc://…".

    Args:
        models: What is served.
        host: Name or address to listen at.
        port: 0 takes a free one.

    Raises:
        OSError: The port is not free.
    """
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(_THREADS),
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.so_reuseport", 0),  # Two servers would share a port silently.
        ],
    )
    service = _Service(models)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    try:
        port = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(f"{host}:{port} cannot be listened at: {error}") from error
    server.start()
    try:
        yield f"grpc://{host}:{port}"
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def serve_rest(
    models: ServedModels, *, host: str = "127.0.0.1", port: int = 0
) -> Iterator[str]:
    """Context manager: serve `/v1/models/NAME` over REST; gives "http://…".

    Args:
        models: What is served.
        host: Name or address to listen at.
        port: 0 takes a free one.

    Raises:
        OSError: The port is not free.
    """
    server = _RestServer((host, port), _RestHandler)
    server.models = models
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Service(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    """The gRPC methods of `prediction_service.proto` and `model_service.proto`."""

    def __init__(self, models: ServedModels) -> None:
        self._models = models

    def Predict(
        self, request: Any, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        with _aborting(context):
            model = self._find(request.model_spec)
            signature = request.model_spec.signature_name
            inputs = {
                name: tf.constant(tf.make_ndarray(value))
                for name, value in request.inputs.items()
            }
            outputs = model.call(signature, inputs)
            wanted = list(request.output_filter) or list(outputs)
            unknown = sorted(set(wanted) - set(outputs))
            if unknown:
                raise RequestError(
                    "INVALID_ARGUMENT",
                    f"The outputs are {sorted(outputs)}; output_filter has {unknown}.",
                )
        response = predict_pb2.PredictResponse()
        response.model_spec.name = model.name
        response.model_spec.version.value = model.version
        response.model_spec.signature_name = signature
        for name in wanted:
            value = tf.make_tensor_proto(outputs[name].numpy())
            response.outputs[name].CopyFrom(value)
        return response

    def GetModelMetadata(
        self, request: Any, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        with _aborting(context):
            return make_metadata(self._find(request.model_spec))

    def GetModelStatus(
        self, request: Any, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        with _aborting(context):
            return make_status(self._find(request.model_spec))

    def _find(self, spec: Any) -> ServedModel:
        version = spec.version.value if spec.HasField("version") else None
        return self._models.find(spec.name, version)


@contextlib.contextmanager
def _aborting(context: grpc.ServicerContext) -> Iterator[None]:
    """Context manager: send a `RequestError` as the call's status."""
    try:
        yield
    except RequestError as error:
        context.abort(grpc.StatusCode[error.code], str(error))


class _RestServer(http.server.ThreadingHTTPServer):
    models: ServedModels
    allow_reuse_port = False


class _RestHandler(http.server.BaseHTTPRequestHandler):
    server: _RestServer

    def do_GET(self) -> None:
        self._respond(lambda: rest_requests.get(self.server.models, self.path))

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._respond(
            lambda: rest_requests.predict(
                self.server.models, self.path, _parse_body(content)
            )
        )

    def _respond(self, compute: Any) -> None:
        try:
            status, value = 200, compute()
        except RequestError as error:
            status, value = _HTTP_STATUS[error.code], {"error": str(error)}
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Print nothing: the error is in the response."""


def _parse_body(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError as error:
        raise RequestError("INVALID_ARGUMENT", f"JSON Parse error: {error}") from error
    if not isinstance(body, dict):
        raise RequestError("INVALID_ARGUMENT", "The body must be a JSON object.")
    return body
