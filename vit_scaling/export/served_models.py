"""Models that the development server serves: versions, signatures, checked calls."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping

import tensorflow as tf
from etils import epath
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from vit_scaling.export.serving_kit import list_versions
from vit_scaling.export.serving_signatures import DEFAULT_SIGNATURE, Outputs
from vit_scaling.library_messages import short_message


class RequestError(Exception):
    """A request that is rejected.

    Attributes:
        code: Name of the gRPC status code, NOT_FOUND or INVALID_ARGUMENT.
    """

    def __init__(self, code: str, message: str) -> None:
        """Make the error of a status code."""
        super().__init__(message)
        self.code = code


class ServedModel:
    """A version of a served model, called by signature.

    Args:
        name: Name of the model in requests.
        folder: The SavedModel.
        version: Its number.
    """

    def __init__(self, name: str, folder: epath.Path, version: int) -> None:
        """Load the SavedModel."""
        self.name, self.version = name, version
        self._loaded = tf.saved_model.load(str(folder))
        content = (folder / "saved_model.pb").read_bytes()
        self._graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]

    @property
    def signature_defs(self) -> Mapping[str, meta_graph_pb2.SignatureDef]:
        """The signatures' inputs and outputs, as the SavedModel states them."""
        return self._graph.signature_def

    def input_specs(self, signature: str = "") -> dict[str, tf.TensorSpec]:
        """Return the inputs of a signature by name.

        Raises:
            RequestError: The model does not have the signature.
        """
        return self._find(signature).structured_input_signature[1]

    def call(self, signature: str, inputs: Mapping[str, tf.Tensor]) -> Outputs:
        """Return the outputs of a signature.

        Raises:
            RequestError: An input is missing, unknown, of another type or shape, or
                rejected by the model.
        """
        specs = self.input_specs(signature)
        if set(inputs) != set(specs):
            raise RequestError(
                "INVALID_ARGUMENT",
                f"The inputs are {sorted(specs)}; received {sorted(inputs)}.",
            )
        for name, value in inputs.items():
            _check_tensor(name, value, specs[name])
        try:
            return self._find(signature)(**inputs)
        except tf.errors.InvalidArgumentError as error:
            message = short_message(error.message)
            raise RequestError("INVALID_ARGUMENT", message) from error

    def _find(self, name: str) -> tf.types.experimental.ConcreteFunction:
        name = name or DEFAULT_SIGNATURE
        if name not in self._loaded.signatures:
            raise RequestError(
                "INVALID_ARGUMENT",
                f'Serving signature name: "{name}" not found; the model has '
                f"{', '.join(sorted(self._loaded.signatures))}.",
            )
        return self._loaded.signatures[name]


def _check_tensor(name: str, value: tf.Tensor, spec: tf.TensorSpec) -> None:
    if value.dtype != spec.dtype:
        raise RequestError(
            "INVALID_ARGUMENT",
            f"Input {name!r} must be {spec.dtype.name}; received {value.dtype.name}.",
        )
    if not spec.shape.is_compatible_with(value.shape):
        raise RequestError(
            "INVALID_ARGUMENT",
            f"Input {name!r} must have shape {spec.shape}; received {value.shape}.",
        )


class ServedModels:
    """The models of an export: one SavedModel, its versions, or a serving kit.

    Args:
        export: Folder of `saved_model.pb`, of numbered versions, or of several models.
        name: Name in requests of a single model; those of a kit have their folders'.

    Raises:
        FileNotFoundError: The folder has no SavedModel.
    """

    def __init__(self, export: epath.Path, *, name: str) -> None:
        """Load the newest version of every model."""
        if (export / "saved_model.pb").is_file():
            number = int(export.name) if export.name.isdigit() else 1
            models = [ServedModel(name, export, number)]
        elif list_versions(export):
            models = [_load_newest(name, export)]
        else:
            folders = sorted(export.iterdir()) if export.is_dir() else []
            models = [_load_newest(f.name, f) for f in folders if list_versions(f)]
        if not models:
            raise FileNotFoundError(
                f"No saved_model.pb in {export} or its numbered folders. Write an "
                "export with: vit-scaling export --model_dir=RUN --output_dir=EXPORT"
            )
        self._models = {model.name: model for model in models}

    @property
    def names(self) -> list[str]:
        """Names of the models."""
        return list(self._models)

    def find(self, name: str, version: int | None = None) -> ServedModel:
        """Return a model by name and, unless None, version.

        Raises:
            RequestError: It is not served.
        """
        model = self._models.get(name)
        if model is None or version not in (None, model.version):
            wanted = "Latest" if version is None else f"Specific({version})"
            served = ", ".join(f"{m.name}:{m.version}" for m in self._models.values())
            raise RequestError(
                "NOT_FOUND",
                f"Servable not found for request: {wanted}({name}); served: {served}.",
            )
        return model


def _load_newest(name: str, folder: epath.Path) -> ServedModel:
    version = max(list_versions(folder))
    return ServedModel(name, folder / str(version), version)
