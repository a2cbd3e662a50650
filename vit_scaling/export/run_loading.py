"""Load the trained model of a run from its folder, in float32 by default."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json
import os
from typing import Any

import keras

import vit_scaling.modeling.vit  # noqa: F401  (registers its layers)
from vit_scaling import io_files
from vit_scaling.export.records import LOSSES, with_preprocess
from vit_scaling.export.serving_signatures import has_classifier
from vit_scaling.run_record import (
    PREPROCESSING_NAMES,
    RunRecord,
    load_run_record,
    uses_averages,
)
from vit_scaling.training import run_weights

LOWER_PRECISIONS = ("mixed_bfloat16", "mixed_float16", "bfloat16", "float16")


def load_run(
    model_dir: str | os.PathLike[str],
    *,
    averages: bool | None = None,
    step: int | None = None,
    float32: bool = True,
) -> tuple[keras.Model, RunRecord]:
    """Return the model of a run with its weights, and the run's record.

    Args:
        model_dir: Folder that a training run wrote: `model.json`, `run.json` and
            `checkpoints/`.
        averages: Take the Polyak averages (True) or the last weights (False); None
            takes those that the run evaluates.
        step: Which checkpoint; None takes the newest.
        float32: Compute in float32 (default: what exports do); False keeps the
            precision of the run.

    Returns:
        (model, record); the record's `step` is the checkpoint's, and its `weights`
        says which weights were taken.

    Raises:
        FileNotFoundError: A file of the run is missing.
        ValueError: A file of the run is damaged, or names and logits disagree.
    """
    model = _build_model(model_dir, float32=float32)
    record = load_run_record(model_dir)
    restored = run_weights.restore_model(
        model, os.fspath(model_dir), averages=averages, step=step
    )
    names = record.class_names or tuple(map(str, range(model.output_shape[-1])))
    record = dataclasses.replace(
        record,
        step=int(restored),
        class_names=names,
        weights="averaged" if uses_averages(model_dir, averages) else "last",
    )
    check_classes(model, record)
    return model, record


def load_for_export(
    model_dir: str | os.PathLike[str],
    *,
    averages: bool | None = None,
    step: int | None = None,
    preprocess: str | None = None,
    resize: int | None = None,
) -> tuple[keras.Model, RunRecord, keras.Model | None]:
    """Return a run's model in float32, its record, and the model as it was run.

    Args:
        model_dir: As the next two, see `load_run`.
        averages: Take the Polyak averages (True) or the last weights (False); None
            takes those that the run evaluates.
        step: Which checkpoint; None takes the newest.
        preprocess: See `with_preprocess`.
        resize: The same.

    Returns:
        (model, record, model in the run's precision); the last is None if the run was
        in float32.
    """
    model, record = load_run(model_dir, averages=averages, step=step)
    record = with_preprocess(record, preprocess, resize)
    as_run = _build_model(model_dir, float32=False)
    if computes_in_float32(as_run):
        return model, record, None
    as_run.set_weights(model.get_weights())
    return model, record, as_run


def check_exportable(model: keras.Model, record: RunRecord) -> None:
    """Raise unless the model and its record can be exported."""
    check_classes(model, record)
    if record.loss not in LOSSES:
        raise ValueError(
            f"`loss` must be one of {', '.join(LOSSES)}; received {record.loss!r}."
        )
    if record.preprocess is None:
        raise ValueError(
            "The run was evaluated with a preprocessing function that exports do not "
            "support. Give the closest as --preprocess, one of "
            f"{', '.join(PREPROCESSING_NAMES)}, and with --resize the size before a "
            "crop."
        )
    if not computes_in_float32(model):
        raise ValueError(
            "`model` must compute in float32; load it with `load_run`, which rebuilds "
            "it, or build it with dtype='float32'."
        )


def config_in_float32(config: Any) -> Any:
    """Replace every lower precision in a model's configuration by float32.

    Args:
        config: Decoded `keras.Model.to_json()`.

    Dtype policies, casts written into the graph and tensors' dtypes are all replaced,
    because a single remaining cast would round. Variables are float32 under a
    mixed policy as well, so the same weights fit.
    """
    if isinstance(config, list):
        return [config_in_float32(item) for item in config]
    if isinstance(config, dict):
        return {key: config_in_float32(value) for key, value in config.items()}
    return "float32" if config in LOWER_PRECISIONS else config


def convert_to_float32(model: keras.Model) -> keras.Model:
    """Return the model if it computes in float32, otherwise a float32 copy."""
    if computes_in_float32(model):
        return model
    config = config_in_float32(json.loads(model.to_json()))
    copy = keras.models.model_from_json(json.dumps(config))
    copy.set_weights(model.get_weights())
    return copy


def computes_in_float32(model: keras.Model) -> bool:
    """Whether all layers of the model compute in float32."""
    return all(layer.compute_dtype == "float32" for layer in model.layers)


def check_classes(model: keras.Model, record: RunRecord) -> None:
    """Raise unless the record names each of the model's logits."""
    logits = int(model.output_shape[-1]) if has_classifier(model) else 0
    if len(record.class_names) != logits:
        raise ValueError(
            "`class_names` must name every logit: the model has "
            f"{logits} logits, the record names {len(record.class_names)} classes. "
            "Correct `class_names` in run.json, or the file of --class_names."
        )


def _build_model(model_dir: str | os.PathLike[str], *, float32: bool) -> keras.Model:
    """Build a run's model with initial weights, in float32 or in its own precision."""
    path = os.path.join(os.fspath(model_dir), "model.json")
    config = _read_json(path, model_dir)
    if float32:
        config = config_in_float32(config)
    return keras.models.model_from_json(json.dumps(config))


def _read_json(path: str, model_dir: str | os.PathLike[str]) -> Any:
    try:
        return io_files.read_json(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"No {os.path.basename(path)} in {os.fspath(model_dir)}: `model_dir` must "
            "be a folder that a training run wrote. Train first, or correct the path."
        ) from error
