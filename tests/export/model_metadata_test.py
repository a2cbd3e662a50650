"""Metadata and status carry the model's name, version and signatures."""
# SPDX-License-Identifier: Apache-2.0

import types

from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2

from vit_scaling.export import model_metadata


def make_model():
    definition = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    return types.SimpleNamespace(
        name="m", version=3, signature_defs={"serving_default": definition}
    )


def test_metadata_holds_the_signatures():
    response = model_metadata.make_metadata(make_model())
    assert (response.model_spec.name, response.model_spec.version.value) == ("m", 3)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    [definition] = signatures.signature_def.values()
    assert definition.method_name == "tensorflow/serving/predict"


def test_status_is_of_the_version():
    [status] = model_metadata.make_status(make_model()).model_version_status
    assert status.version == 3 and status.state == status.AVAILABLE
