"""Requests and responses of TensorFlow Serving's REST interface, as JSON values.

The format is that of https://www.tensorflow.org/tfx/serving/api_rest: rows under
`instances`, or columns under `inputs`.
"""
# SPDX-License-Identifier: Apache-2.0

import base64
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

from vit_scaling.export.model_metadata import make_metadata, make_status
from vit_scaling.export.served_models import RequestError, ServedModels

_PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+))?"
    r"(?P<part>:predict|/metadata|)"
)


class _Target(NamedTuple):
    name: str
    version: int | None
    part: str


def get(models: ServedModels, path: str) -> dict[str, Any]:
    """Return the status or the metadata of a model.

    Raises:
        RequestError: The path or the model does not exist.
    """
    target = _parse_path("GET", path, ("", "/metadata"))
    model = models.find(target.name, target.version)
    message = (make_metadata if target.part else make_status)(model)
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def predict(models: ServedModels, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the response to a decoded `:predict` request.

    Raises:
        RequestError: The path, the model or its signature does not exist, or the body
            does not fit the signature.
    """
    target = _parse_path("POST", path, (":predict",))
    model = models.find(target.name, target.version)
    signature = body.get("signature_name", "")
    specs = model.input_specs(signature)
    if ("instances" in body) == ("inputs" in body):
        raise RequestError(
            "INVALID_ARGUMENT", "The body must have either `instances` or `inputs`."
        )
    if "instances" in body:
        outputs = model.call(signature, _read_rows(body["instances"], specs))
        columns = {name: _to_json(name, value) for name, value in outputs.items()}
        return {"predictions": _to_rows(columns)}
    outputs = model.call(signature, _read_columns(body["inputs"], specs))
    return {"outputs": _unwrap({n: _to_json(n, v) for n, v in outputs.items()})}


def _parse_path(method: str, path: str, parts: tuple[str, ...]) -> _Target:
    match = _PATH.fullmatch(path)
    if match is None or match["part"] not in parts:
        raise RequestError("NOT_FOUND", f"Malformed request: {method} {path}")
    version = match["version"]
    return _Target(match["name"], int(version) if version else None, match["part"])


def _read_rows(
    instances: Any, specs: Mapping[str, tf.TensorSpec]
) -> dict[str, tf.Tensor]:
    if not isinstance(instances, list) or not instances:
        raise RequestError(
            "INVALID_ARGUMENT", "`instances` must be a list of at least one value."
        )
    rows = [_name_inputs(row, specs) for row in instances]
    names = set(rows[0])
    if any(set(row) != names for row in rows):
        raise RequestError("INVALID_ARGUMENT", "`instances` differ in their inputs.")
    return {
        name: _to_tensor([row[name] for row in rows], specs.get(name)) for name in names
    }


def _read_columns(
    inputs: Any, specs: Mapping[str, tf.TensorSpec]
) -> dict[str, tf.Tensor]:
    columns = _name_inputs(inputs, specs)
    return {name: _to_tensor(value, specs.get(name)) for name, value in columns.items()}


def _name_inputs(value: Any, specs: Mapping[str, tf.TensorSpec]) -> dict[str, Any]:
    """Return inputs by name; the name of a single input may be left out."""
    if isinstance(value, dict) and set(value) != {"b64"}:
        return value
    if len(specs) != 1:
        raise RequestError(
            "INVALID_ARGUMENT", f"The inputs must be named: {', '.join(sorted(specs))}."
        )
    return {next(iter(specs)): value}


def _to_tensor(value: Any, spec: tf.TensorSpec | None) -> tf.Tensor:
    try:
        dtype = None if spec is None else spec.dtype
        return tf.constant(_decode_strings(value), dtype)
    except (TypeError, ValueError) as error:
        raise RequestError(
            "INVALID_ARGUMENT", f"A value is not a tensor: {error}"
        ) from error


def _decode_strings(value: Any) -> Any:
    """Replace every {"b64": text} by its bytes."""
    if isinstance(value, list):
        return [_decode_strings(item) for item in value]
    if isinstance(value, dict) and set(value) == {"b64"}:
        return base64.b64decode(value["b64"], validate=True)
    return value


def _to_json(name: str, value: tf.Tensor) -> Any:
    """Return a tensor as lists; strings are base64 if the name ends with `_bytes`."""
    array = value.numpy()
    if value.dtype != tf.string:
        return array.tolist()
    if name.endswith("_bytes"):
        return _map(array, lambda text: {"b64": base64.b64encode(text).decode()})
    return _map(array, lambda text: text.decode(errors="replace"))


def _map(array: np.ndarray, convert: Any) -> Any:
    return np.frompyfunc(convert, 1, 1)(array).tolist()


def _to_rows(columns: Mapping[str, list[Any]]) -> list[Any]:
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    return [_unwrap(dict(zip(names, row, strict=True))) for row in rows]


def _unwrap(values: dict[str, Any]) -> Any:
    """Return the value itself if there is one only, as the server does."""
    return next(iter(values.values())) if len(values) == 1 else values
