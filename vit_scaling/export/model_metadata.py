"""Metadata and status of a served model, as TensorFlow Serving's messages."""
# SPDX-License-Identifier: Apache-2.0

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from vit_scaling.export.served_models import ServedModel


def make_metadata(
    model: ServedModel,
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Return the signatures of a model, as `GetModelMetadata` does."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = model.name
    response.model_spec.version.value = model.version
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in model.signature_defs.items():
        signatures.signature_def[name].CopyFrom(definition)
    response.metadata["signature_def"].Pack(signatures)
    return response


def make_status(model: ServedModel) -> get_model_status_pb2.GetModelStatusResponse:
    """Return the status of a model, which is available as soon as it is served."""
    status = get_model_status_pb2.ModelVersionStatus
    response = get_model_status_pb2.GetModelStatusResponse()
    entry = response.model_version_status.add()
    entry.version, entry.state = model.version, status.AVAILABLE
    entry.status.error_code = 0  # Set, so that JSON has it.
    return response
