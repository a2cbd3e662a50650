"""Predict the classes of images with a model server, over gRPC or REST."""
# SPDX-License-Identifier: Apache-2.0

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Sequence

from vit_scaling.export.prediction import Predictor
from vit_scaling.library_messages import short_message

TopClasses = tuple[list[list[str]], list[list[float]]]


def make_server_predictor(
    server: str,
    *,
    model: str = "vit",
    version: int | None = None,
    timeout_seconds: float = 60.0,
) -> Predictor:
    """Return a predictor that sends images to a model server.

    Args:
        server: "grpc://host:8500" or "http://host:8501" (https too).
        model: Name of the served model.
        version: Version of the model; None takes the newest that is served.
        timeout_seconds: Timeout of one request.

    Raises:
        ValueError: `server` is not such an address.
    """
    kind, _, rest = server.partition("://")
    if kind == "grpc" and rest:
        return _make_grpc_predictor(rest, model, version, timeout_seconds)
    if kind in ("http", "https") and rest:
        return _make_rest_predictor(server.rstrip("/"), model, version, timeout_seconds)
    raise ValueError(
        "`server` must begin with grpc://, http:// or https://, such as "
        f"grpc://localhost:8500; received {server!r}."
    )


def check_api_installed(who: str) -> None:
    """Raise an ImportError that says what to install if the stubs are missing."""
    try:
        import grpc  # noqa: F401
        import tensorflow_serving.apis  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{who} needs the official stubs of the model server: pip install "
            '"vit_scaling[serving]".'
        ) from error


def _make_grpc_predictor(
    address: str, model: str, version: int | None, timeout_seconds: float
) -> Predictor:
    check_api_installed("A server's gRPC address")
    import grpc  # pip install "vit_scaling[serving]"
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    options = [("grpc.max_receive_message_length", -1)]
    channel = grpc.insecure_channel(address, options=options)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def predict_images(images: Sequence[bytes]) -> TopClasses:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        if version is not None:
            request.model_spec.version.value = version
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(list(images)))
        try:
            response = stub.Predict(request, timeout=timeout_seconds)
        except grpc.RpcError as error:
            raise _to_python_error(
                error.code().name, error.details(), address
            ) from error
        names = tf.make_ndarray(response.outputs["top_classes"])
        values = tf.make_ndarray(response.outputs["top_probabilities"])
        return [[name.decode() for name in row] for row in names], values.tolist()

    return predict_images


def _make_rest_predictor(
    server: str, model: str, version: int | None, timeout_seconds: float
) -> Predictor:
    part = "" if version is None else f"/versions/{version}"
    url = f"{server}/v1/models/{model}{part}:predict"

    def predict_images(images: Sequence[bytes]) -> TopClasses:
        instances = [
            {"b64": base64.b64encode(image).decode("ascii")} for image in images
        ]
        body = json.dumps({"instances": instances}).encode()
        request = urllib.request.Request(
            url, body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_seconds) as response:
                rows = json.load(response)["predictions"]
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            code = "INVALID_ARGUMENT" if error.code == 400 else f"HTTP {error.code}"
            raise _to_python_error(code, text, url) from error
        except urllib.error.URLError as error:
            raise _to_python_error("UNAVAILABLE", str(error.reason), url) from error
        return (
            [row["top_classes"] for row in rows],
            [row["top_probabilities"] for row in rows],
        )

    return predict_images


def _to_python_error(code: str, details: str | None, server: str) -> Exception:
    """Return the Python exception for a server's error."""
    if code == "INVALID_ARGUMENT":
        cause = short_message(details or "")
        return ValueError(f"The model refused the images: {cause}")
    if code == "UNAVAILABLE":
        return ConnectionError(f"No model server answers at {server}: {details}")
    return RuntimeError(f"The model server at {server} failed with {code}: {details}")
