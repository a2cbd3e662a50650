"""A small model server: the official gRPC stubs and REST paths over a SavedModel.

It stands in for `tensorflow_model_server`: the protocol, its messages and the checks of
a request against the signature are the server's; scheduling and batching are not here.

By hand: `python -m tests.export.prediction_service --kit=KIT --model=vit [--port=8500]`
prints the address and serves over gRPC until it is interrupted.
"""
# SPDX-License-Identifier: Apache-2.0

import argparse
import base64
import concurrent.futures
import contextlib
import http.server
import json
import re
import threading

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from vit_scaling.export import prediction

INVALID = grpc.StatusCode.INVALID_ARGUMENT


class Refused(Exception):
    """A request that the server does not answer: a gRPC code and a text."""


class Model:
    """A served version, asked by signature."""

    def __init__(self, name, folder):
        self.name = name
        self.folder = prediction.find_version_folder(folder)
        self.version = int(self.folder.name)
        self.loaded = tf.saved_model.load(str(self.folder))

    def signature(self, name, model, version=None):
        if model != self.name or version not in (None, self.version):
            raise Refused(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
        if name not in self.loaded.signatures:
            raise Refused(INVALID, f'Serving signature name: "{name}" not found')
        return self.loaded.signatures[name]

    def run(self, signature, inputs):
        specs = signature.structured_input_signature[1]
        if set(inputs) != set(specs):
            raise Refused(INVALID, f"inputs are {sorted(specs)}, got {sorted(inputs)}")
        for key, value in inputs.items():
            if value.dtype != specs[key].dtype:
                raise Refused(
                    INVALID,
                    f"Expects arg[0] to be {specs[key].dtype.name} but "
                    f"{value.dtype.name} is provided",
                )
            if not specs[key].shape.is_compatible_with(value.shape):
                raise Refused(
                    INVALID, f"input {key} is {value.shape}, not {specs[key].shape}"
                )
        try:
            return signature(**inputs)
        except tf.errors.InvalidArgumentError as error:
            raise Refused(INVALID, error.message) from error


class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, as `prediction_service.proto` has it."""

    def __init__(self, model):
        self.model = model

    def Predict(self, request, context):
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        name = spec.signature_name or "serving_default"
        try:
            signature = self.model.signature(name, spec.name, version)
            inputs = {
                key: tf.constant(tf.make_ndarray(value))
                for key, value in request.inputs.items()
            }
            outputs = self.model.run(signature, inputs)
        except Refused as refused:
            context.abort(*refused.args)
        wanted = request.output_filter or outputs
        response = predict_pb2.PredictResponse()
        response.model_spec.name = self.model.name
        response.model_spec.version.value = self.model.version
        for key in wanted:
            response.outputs[key].CopyFrom(tf.make_tensor_proto(outputs[key].numpy()))
        return response


@contextlib.contextmanager
def grpc_server(model, port=0):
    """Yield "grpc://…" of a running server; port 0 takes a free one."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Servicer(model), server
    )
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def rest_server(model):
    """Yield "http://…" of a running server that answers the predict path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            code, answer = rest_answer(model, self.path, body)
            text = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def rest_answer(model, path, body):
    """Return status and JSON for a body with `instances` of a single input."""
    found = re.fullmatch(r"/v1/models/([^/]+)(?:/versions/(\d+))?:predict", path)
    if not found:
        return 404, {"error": f"Malformed request: POST {path}"}
    version = int(found[2]) if found[2] else None
    try:
        signature = model.signature(
            body.get("signature_name", "serving_default"), found[1], version
        )
        [(key, spec)] = signature.structured_input_signature[1].items()
        instances = body["instances"]
        if spec.dtype == tf.string:
            value = tf.constant([base64.b64decode(one["b64"]) for one in instances])
        else:
            value = tf.constant(np.asarray(instances, np.float32))
        outputs = model.run(signature, {key: value})
    except Refused as refused:
        missing = refused.args[0] == grpc.StatusCode.NOT_FOUND
        return 404 if missing else 400, {"error": refused.args[1]}
    columns = {name: _plain(value) for name, value in outputs.items()}
    return 200, {
        "predictions": [
            {name: rows[number] for name, rows in columns.items()}
            for number in range(len(instances))
        ]
    }


def _plain(tensor):
    values = tensor.numpy()
    if values.dtype == object:
        return [[text.decode() for text in row] for row in values]
    return values.tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kit", required=True, help="folder that holds MODEL/1/ …")
    parser.add_argument("--model", default="vit", help="name of the served model")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    flags = parser.parse_args()
    model = Model(flags.model, f"{flags.kit}/{flags.model}")
    with (
        grpc_server(model, flags.port) as address,
        contextlib.suppress(KeyboardInterrupt),
    ):
        print(f"{flags.model} version {model.version} at {address}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
