"""Write a numbered version of a SavedModel with the files of its model server."""
# SPDX-License-Identifier: Apache-2.0

import functools
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from etils import epath

from vit_scaling import io_files
from vit_scaling.export import clients, saved_model, serving_signatures
from vit_scaling.run_record import RunRecord

# Required by the model server for models that XLA compiles for a CPU.
COMPILED = "\n      - --xla_cpu_compilation_enabled=true"

WARMUP_FILE = "tf_serving_warmup_requests"  # The name that the server looks for.
ALLOWED_BATCHES = (1, 2, 4, 8, 16, 32)

MODEL_CONFIG = """\
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
  }}
"""

# Requests wait 5 ms at most to be run together; a batch is padded to an allowed size. A
# bad image fails the requests that it was run with, and none may be of more images than
# the largest size (docs/reference/serving.md says what clients do).
BATCHING = """\
max_batch_size {{ value: {largest} }}
batch_timeout_micros {{ value: 5000 }}
max_enqueued_batches {{ value: 100 }}
num_batch_threads {{ value: {threads} }}
{allowed}
"""

# Of tensorflow-serving-api, whose protocol the tests use. Its TensorFlow decodes WebP.
SERVER_VERSION = "2.20.0"

COMPOSE = """\
# TensorFlow Serving with the models of this folder: gRPC on port 8500, REST on 8501.
services:
  serving:
    image: "tensorflow/serving:${{TF_SERVING_TAG:-{version}}}"
    ports: ["8500:8500", "8501:8501"]
    volumes: [".:/models:ro"]
    environment:
      TF_ENABLE_ONEDNN_OPTS: "1"  # Faster kernels, on older x86 processors as well.
    command:
      - --model_config_file=/models/models.config
      - --enable_batching
      - --batching_parameters_file=/models/batching_parameters.txt{flags}
    restart: unless-stopped
"""

SERVE = """\
#!/usr/bin/env bash
# Start the server of compose.yaml, for example in the background: ./serve.sh --detach
set -euo pipefail
here="$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)"
exec docker compose --file "$here/compose.yaml" up "$@"
# Ask: vit-scaling predict --server=grpc://localhost:8500 --model={name} --images=FOLDER
# Without docker, for development: vit-scaling serve THIS_FOLDER
"""


def write_kit(
    model_dir: epath.PathLike,
    output_dir: epath.PathLike,
    *,
    name: str = "vit",
    version: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Export a run as the next version of a served model, with the server's files.

        output_dir/models.config             list of the models
        output_dir/batching_parameters.txt   how requests are batched
        output_dir/compose.yaml              the server's docker container
        output_dir/serve.sh                  starts it
        output_dir/vit/1/                    SavedModel, with warm-up requests

    A server that watches the folder loads a new version by itself.

    Args:
        model_dir: Folder of the run.
        output_dir: Folder of the kit; may hold earlier versions and other models.
        name: Name of the model in requests.
        version: Number of the folder; None takes the next after the highest.
        **options: Of `saved_model.export_run`.

    Returns:
        See `write_version`.

    Raises:
        ImportError, ValueError: See `write_version`.
    """
    write = functools.partial(saved_model.export_run, model_dir, **options)
    return write_version(write, output_dir, name=name, version=version)


def write_version(
    write: Callable[..., dict[str, Any]],
    output_dir: epath.PathLike,
    *,
    name: str = "vit",
    version: int | None = None,
) -> dict[str, Any]:
    """Write a SavedModel as the next version of a served model, as `write_kit` does.

    Args:
        write: `saved_model.export_run` or `export_model`, with all of their arguments
            but `output_dir` and `extra`.
        output_dir: As the next two, see `write_kit`.
        name: Name of the model in requests.
        version: Number of the folder; None takes the next after the highest.

    Returns:
        The report of `write`, and `kit`, `name` and `version`.

    Raises:
        ImportError: `tensorflow-serving-api` is not installed.
        ValueError: `name` or `version` is not valid.
    """
    clients.check_api_installed("A serving kit, with its warm-up requests,")
    if not name.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"`name` must be letters, digits, - and _; received {name!r}.")
    kit = epath.Path(output_dir)
    if version is None:
        version = max(list_versions(kit / name), default=0) + 1
    if version < 1:
        raise ValueError(f"`version` must be at least 1; received {version}.")
    report = write(output_dir=kit / name / str(version), extra=write_warmup)
    models = sorted(path.name for path in kit.iterdir() if list_versions(path))
    entries = "".join(MODEL_CONFIG.format(name=model) for model in models)
    io_files.write_text(kit / "models.config", f"model_config_list {{\n{entries}}}\n")
    allowed = "\n".join(f"allowed_batch_sizes: {size}" for size in ALLOWED_BATCHES)
    threads = os.cpu_count() or 1
    batching = BATCHING.format(
        largest=max(ALLOWED_BATCHES), threads=threads, allowed=allowed
    )
    io_files.write_text(kit / "batching_parameters.txt", batching)
    flags = COMPILED if any(_uses_xla(kit / model) for model in models) else ""
    compose = COMPOSE.format(version=SERVER_VERSION, flags=flags)
    io_files.write_text(kit / "compose.yaml", compose)
    io_files.write_text(kit / "serve.sh", SERVE.format(name=name))
    if not io_files.is_remote(kit):
        os.chmod(kit / "serve.sh", 0o755)
    return {**report, "kit": str(kit), "name": name, "version": version}


def list_versions(folder: epath.PathLike) -> list[int]:
    """Return the numbers of the version folders of a served model, ascending."""
    path = epath.Path(folder)
    found = path.iterdir() if path.is_dir() else ()
    return sorted(
        int(version.name)
        for version in found
        if version.name.isdigit() and (version / "saved_model.pb").is_file()
    )


def _uses_xla(model: epath.Path) -> bool:
    """Whether any version of a served model is compiled by XLA."""
    return any(
        saved_model.read_report(model / str(version)).get("jit_compile", False)
        for version in list_versions(model)
    )


def write_warmup(folder: epath.Path, record: RunRecord, *, name: str = "vit") -> None:
    """Write requests that the server runs before it serves the first client.

    A request for each signature and each batch size that batching may make, so that no
    client waits for the first run.

    Args:
        folder: The SavedModel.
        record: Image size and value range.
        name: Model name in the requests; the server does not compare it.
    """
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    extra = folder / "assets.extra"
    extra.mkdir(exist_ok=True)
    height, width = record.image_size
    content = tf.io.encode_jpeg(tf.zeros((height, width, 3), tf.uint8)).numpy()
    with tf.io.TFRecordWriter(str(extra / WARMUP_FILE)) as writer:
        for size in ALLOWED_BATCHES:
            images = saved_model.make_random_images(size, record, seed=0)
            files = {"image_bytes": [content] * size}
            for signature, inputs in (
                (serving_signatures.FLOAT_SIGNATURE, {"images": images}),
                (serving_signatures.BYTES_SIGNATURE, files),
                (serving_signatures.DEFAULT_SIGNATURE, files),
                (serving_signatures.FEATURES_SIGNATURE, files),
            ):
                request = predict_pb2.PredictRequest()
                request.model_spec.name = name
                request.model_spec.signature_name = signature
                [(key, values)] = inputs.items()
                request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
                log = prediction_log_pb2.PredictionLog(
                    predict_log=prediction_log_pb2.PredictLog(request=request)
                )
                writer.write(log.SerializeToString())
