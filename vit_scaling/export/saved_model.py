"""Write a SavedModel with image and bytes signatures; check it against the model."""
# SPDX-License-Identifier: Apache-2.0

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from etils import epath

from vit_scaling import io_files
from vit_scaling.export import run_loading, serving_signatures
from vit_scaling.run_record import RunRecord, record_from_json

RECORD_FILE = "vit_scaling.json"  # In assets.extra, which model servers ignore.
Extra = Callable[[epath.Path, RunRecord], None]
TOLERANCE = 1e-4  # Far above rounding, far below any mistake in weights or layers.


def export_run(
    model_dir: epath.PathLike,
    output_dir: epath.PathLike,
    *,
    averages: bool | None = None,
    step: int | None = None,
    top_k: int = 5,
    preprocess: str | None = None,
    resize: int | None = None,
    jit_compile: bool = False,
    extra: Extra | None = None,
) -> dict[str, Any]:
    """Write the SavedModel of a training run; return the report of `export_model`.

    Args:
        model_dir: Folder of the run.
        output_dir: Folder of the SavedModel, which must not exist yet.
        averages: Take the Polyak averages (True) or the last weights (False); None
            takes those that the run evaluates.
        step: Which checkpoint; None takes the newest.
        top_k: Number of best classes that the SavedModel lists.
        preprocess: "central_crop" or "resize" of images given as bytes; None takes what
            the run says, or "central_crop".
        resize: Pixels of the smaller side before the crop; None takes the run's.
        jit_compile: See `export_model`.
        extra: Writes more files into the SavedModel.
    """
    model, record, run_model = run_loading.load_for_export(
        model_dir, averages=averages, step=step, preprocess=preprocess, resize=resize
    )
    return export_model(
        model,
        output_dir,
        record,
        top_k=top_k,
        run_model=run_model,
        jit_compile=jit_compile,
        extra=extra,
    )


def export_model(
    model: keras.Model,
    output_dir: epath.PathLike,
    record: RunRecord,
    *,
    top_k: int = 5,
    run_model: keras.Model | None = None,
    jit_compile: bool = False,
    extra: Extra | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Write `model` as a SavedModel, load it again and compare its outputs.

    The folder appears complete, by a rename, after the comparison; a failure leaves
    nothing.

    Args:
        model: Functional model that computes in float32.
        output_dir: Folder of the SavedModel, which must not exist yet.
        record: Names of the classes, image size, value range, loss.
        top_k: Number of best classes listed.
        run_model: The same weights in the run's lower precision, to report the
            difference; None when the run was in float32.
        jit_compile: Have XLA compile the model for each size of a batch, when it is
            first asked: faster from then on. A server must have XLA for its device.
        extra: Writes more files into the SavedModel, given its folder and the record.
        seed: Of the random images of the comparison.

    Returns:
        `output_dir`, `step`, `weights`, `classes`, `parameters`, `bytes` (of the
        folder), per output `max_difference` against the model in a `tf.function` (0
        expected) and `max_difference_eager` against it op by op (rounding); with
        `run_model` also `max_difference_to_run_precision` of the logits.

    Raises:
        FileExistsError: `output_dir` exists already.
        ValueError: Record and model disagree, or `model` does not compute in float32.
        RuntimeError: The SavedModel's outputs differ from the model's.
    """
    run_loading.check_exportable(model, record)
    with io_files.atomic_folder(output_dir) as temporary:
        folder = epath.Path(temporary)
        _write(model, folder, record, top_k=top_k, jit_compile=jit_compile)
        report = {
            "output_dir": os.fspath(output_dir),
            "step": record.step,
            "weights": record.weights,
            "classes": len(record.class_names),
            "parameters": int(model.count_params()),
            "jit_compile": jit_compile,
            **_compare(model, folder, record, jit_compile=jit_compile, seed=seed),
        }
        if run_model is not None:
            report["max_difference_to_run_precision"] = compare_precisions(
                model, run_model, record, seed=seed
            )
        _write_record(folder, record, report)
        if extra is not None:
            extra(folder, record)
        report["bytes"] = sum(
            path.stat().st_size
            for path in pathlib.Path(folder).rglob("*")
            if path.is_file()
        )
    return report


def compare_precisions(
    model: keras.Model, run_model: keras.Model, record: RunRecord, *, seed: int
) -> dict[str, float]:
    """Return the largest difference of the logits to those in the run's precision."""
    images = make_random_images(2, record, seed=seed)
    return {"logits": float(np.abs(run_model(images) - model(images)).max())}


def make_random_images(number: int, record: RunRecord, *, seed: int) -> np.ndarray:
    """Return (number, height, width, 3) float32, uniform over the value range."""
    shape = (number, *record.image_size, 3)
    low, high = record.value_range
    values = np.random.default_rng(seed).uniform(low, high, shape)
    return values.astype(np.float32)


def read_record(saved_model: epath.PathLike) -> RunRecord:
    """Return the record that `export_model` put into a SavedModel.

    Raises:
        FileNotFoundError: The folder is not a SavedModel of this package.
    """
    path = _record_path(saved_model)
    if not path.is_file():
        raise FileNotFoundError(
            f"No {path}: `saved_model` must be a folder that vit-scaling export wrote "
            "(the one that holds saved_model.pb)."
        )
    fields = io_files.read_json(path)["record"]
    return record_from_json(fields, source=str(path))


def read_report(saved_model: epath.PathLike) -> dict[str, Any]:
    """Return the report that `export_model` put into a SavedModel; {} without one."""
    path = _record_path(saved_model)
    return io_files.read_json(path)["report"] if path.is_file() else {}


def load_feature_function(
    saved_model: epath.PathLike,
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function from float images to the SavedModel's features."""
    signature = serving_signatures.load_signature(
        saved_model, serving_signatures.FLOAT_SIGNATURE
    )
    return lambda images: signature(images=images)["features"]


def _write(
    model: keras.Model,
    folder: epath.Path,
    record: RunRecord,
    *,
    top_k: int,
    jit_compile: bool,
) -> None:
    module = tf.Module()
    # Only the variables are tracked: Keras' own bookkeeping has no place in a server.
    module.weights = [variable.value for variable in model.variables]
    tf.saved_model.save(
        module,
        str(folder),
        signatures=serving_signatures.make_signatures(
            model, record, top_k=top_k, jit_compile=jit_compile
        ),
        options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
    )


def _write_record(
    folder: epath.Path, record: RunRecord, report: dict[str, Any]
) -> None:
    content = {"record": record.as_dict(), "report": report}
    io_files.write_json(_record_path(folder), content)


def _record_path(saved_model: epath.PathLike) -> epath.Path:
    return epath.Path(saved_model) / "assets.extra" / RECORD_FILE


def _compare(
    model: keras.Model,
    folder: epath.Path,
    record: RunRecord,
    *,
    jit_compile: bool,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Return the largest difference per output between the SavedModel and the model.

    The model is run as a `tf.function`, as training and evaluation run it, compiled
    where the SavedModel is: there 0 is expected. Op by op (eagerly) nothing is fused,
    so sums round differently; that difference is returned as well.
    """
    images = tf.constant(make_random_images(3, record, seed=seed))
    loaded = tf.saved_model.load(str(folder))
    outputs = loaded.signatures[serving_signatures.FLOAT_SIGNATURE](images=images)
    inner = serving_signatures.make_output_model(model)
    compiled = serving_signatures.make_numeric_function(
        inner, record, jit_compile=jit_compile
    )
    in_graph = tf.function(compiled)(images)
    differences = _max_differences(outputs, in_graph)
    # NaN must not pass either, and max() may drop it.
    if not all(value <= TOLERANCE for value in differences.values()):
        raise RuntimeError(
            f"The SavedModel's outputs differ from the model's: {differences}; nothing "
            "was written."
        )
    eager = _max_differences(
        outputs, serving_signatures.make_numeric_function(inner, record)(images)
    )
    return {"max_difference": differences, "max_difference_eager": eager}


def _max_differences(
    outputs: Mapping[str, tf.Tensor], expected: Mapping[str, tf.Tensor]
) -> dict[str, float]:
    return {
        name: float(np.abs(outputs[name].numpy() - expected[name].numpy()).max())
        for name in sorted(expected)
    }
