"""REST requests and responses have the form of TensorFlow Serving's documentation."""
# SPDX-License-Identifier: Apache-2.0

import base64

import numpy as np
import pytest
import tensorflow as tf

from vit_scaling.export import rest_requests
from vit_scaling.export.served_models import RequestError


class OneModel:
    """Models and a model at once, with signatures that need no SavedModel."""

    def __init__(self):
        strings = tf.TensorSpec((None,), tf.string)
        self.specs = {
            "": {"x": tf.TensorSpec((None, 2), tf.float32)},
            "named": {"x": tf.TensorSpec((None,), tf.float32), "text": strings},
            "strings": {"file_bytes": strings},
        }

    def find(self, name, version=None):
        assert (name, version) in (("m", None), ("m", 3))
        return self

    def input_specs(self, signature):
        return self.specs[signature]

    def call(self, signature, inputs):
        if signature == "strings":
            return {"out_bytes": inputs["file_bytes"], "text": inputs["file_bytes"]}
        if signature == "named":
            return {"twice": inputs["x"] * 2, "text": inputs["text"]}
        return {"sum": tf.reduce_sum(inputs["x"], axis=1)}


def predict(body, path="/v1/models/m:predict"):
    return rest_requests.predict(OneModel(), path, body)


def test_rows_and_columns_of_one_input_need_no_name():
    values = [[1.0, 2.0], [3.0, 4.0]]
    for wrap in (lambda value: value, lambda value: {"x": value}):
        rows = predict({"instances": [wrap(row) for row in values]})
        assert rows == {"predictions": [3.0, 7.0]}  # One output: without its name.
        assert predict({"inputs": wrap(values)}) == {"outputs": [3.0, 7.0]}


def test_several_inputs_and_outputs_are_named():
    body = {"signature_name": "named"}
    rows = [{"x": 1.5, "text": "a"}, {"x": 2.0, "text": "b"}]
    expected = [{"twice": 3.0, "text": "a"}, {"twice": 4.0, "text": "b"}]
    assert predict({**body, "instances": rows}) == {"predictions": expected}
    columns = {"x": [1.5, 2.0], "text": ["a", "b"]}
    assert predict({**body, "inputs": columns}) == {
        "outputs": {"twice": [3.0, 4.0], "text": ["a", "b"]}
    }


def test_bytes_go_in_and_out_as_base64():
    content = bytes(range(256))
    text = {"b64": base64.b64encode(content).decode()}
    [row] = predict({"signature_name": "strings", "instances": [text]})["predictions"]
    assert row["out_bytes"] == text
    assert row["text"] == content.decode(errors="replace")


@pytest.mark.parametrize(
    "path", ["/v1/models/m:predict", "/v1/models/m/versions/3:predict"]
)
def test_paths_name_the_model_and_its_version(path):
    assert predict({"instances": [[1.0, 1.0]]}, path)["predictions"] == [2.0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "either `instances` or `inputs`"),
        ({"instances": [[0, 0]], "inputs": [[0, 0]]}, "either `instances` or"),
        ({"instances": []}, "at least one value"),
        ({"instances": [{"x": [0, 0]}, {"y": 1}]}, "differ in their inputs"),
        ({"instances": [[1.0], [2.0, 3.0]]}, "not a tensor"),
        ({"instances": ["a"]}, "not a tensor"),
        ({"signature_name": "named", "instances": [1.0]}, "must be named: text, x"),
        ({"signature_name": "strings", "inputs": [{"b64": "%"}]}, "not a tensor"),
    ],
)
def test_bodies_that_do_not_fit_are_invalid(body, message):
    with pytest.raises(RequestError, match=message) as caught:
        predict(body)
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("path", ["/", "/v1/models/m:classify", "/v1/models/m"])
def test_other_paths_are_not_found(path):
    with pytest.raises(RequestError, match=f"Malformed request: POST {path}"):
        predict({"instances": [[0.0, 0.0]]}, path)
    with pytest.raises(RequestError, match="Malformed request: GET"):
        rest_requests.get(OneModel(), "/v1/models/m:predict")


def test_numbers_stay_exact():
    value = np.float32(1 / 3)
    [found] = predict({"instances": [[float(value), 0.0]]})["predictions"]
    assert np.float32(found) == value
