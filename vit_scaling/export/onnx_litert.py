"""Export to ONNX or LiteRT and compare the file's outputs with the model's."""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import pathlib
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vit_scaling import io_files
from vit_scaling.export import run_loading, saved_model, serving_signatures
from vit_scaling.naming import check_known
from vit_scaling.run_record import RunRecord

FILES = {"onnx": "model.onnx", "litert": "model.tflite"}
OPSET = 18  # Of 2022: ReduceMean and Split as they are today.
MAX_BYTES = 2**31 - 2**24  # Both formats address 2 GiB; room for the graph.
INT8_TOLERANCE = 0.1  # Of an output's largest value: rounding to 8 bits gives 1-5 %.
Arrays = dict[str, np.ndarray]


def export_run(
    model_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    kind: str,
    averages: bool | None = None,
    step: int | None = None,
    preprocess: str | None = None,
    resize: int | None = None,
    int8: bool = False,
) -> dict[str, Any]:
    """Write a training run as ONNX or LiteRT; return the report of `export_model`.

    Args:
        model_dir: Folder of the run.
        output_dir: Folder of the file, which must not exist yet.
        kind: "onnx" or "litert".
        averages: Take the Polyak averages (True) or the last weights (False); None
            takes those that the run evaluates.
        step: Which checkpoint; None takes the newest.
        preprocess: As in `saved_model.export_run`; only written into the record.
        resize: The same.
        int8: See `export_model`.
    """
    model, record, run_model = run_loading.load_for_export(
        model_dir, averages=averages, step=step, preprocess=preprocess, resize=resize
    )
    return export_model(
        model, output_dir, record, kind=kind, run_model=run_model, int8=int8
    )


def export_model(
    model: keras.Model,
    output_dir: str | os.PathLike[str],
    record: RunRecord,
    *,
    kind: str,
    run_model: keras.Model | None = None,
    int8: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Write `model.onnx` or `model.tflite` and `vit_scaling.json`; compare outputs.

    The file takes `images` (batch, height, width, 3) float32 in the record's value
    range, any batch, and returns `logits`, `probabilities`, `features` and `tokens` in
    float32. Decoding images is the caller's: neither format has it. `vit_scaling.json`
    holds the record (class names, image size, value range, resize and crop).

    Args:
        model: Functional model that computes in float32.
        output_dir: Folder of the file, which must not exist yet; it appears complete.
        record: Names of the classes, image size, value range, loss.
        kind: "onnx" (extra `onnx`: tf2onnx, onnxruntime) or "litert" (extra `litert`).
        run_model: The same weights in the run's lower precision, to report the
            difference; None when the run was in float32.
        int8: Store matrices in 8 bits, a quarter of the bytes. Inputs of products with
            them are rounded to 8 bits as they occur; no calibration. On processors ONNX
            Runtime gains more speed than LiteRT.
        seed: Of the random images of the comparison.

    Returns:
        `output_dir`, `file`, `kind`, `step`, `weights`, `classes`, `parameters`,
        `int8`, `bytes`, and per output `max_difference` between the file in its runtime
        and the model in a `tf.function`: rounding, since the runtimes sum in other
        orders. With `run_model` also `max_difference_to_run_precision` of the logits.

    Raises:
        FileExistsError: `output_dir` exists already.
        ImportError: The converter or the runtime is not installed.
        ValueError: An argument is out of its range, or the model is too large.
        RuntimeError: The outputs differ by more than 1e-4, or in 8 bits by more than a
            tenth of their largest value; nothing was written.
    """
    check_known("kind", kind, FILES)
    run_loading.check_exportable(model, record)
    size = 4 * model.count_params()
    if size > MAX_BYTES:
        raise ValueError(
            f"An {kind} file holds at most 2 GiB; the weights take {size / 2**30:.2f} "
            "GiB. Export a SavedModel."
        )
    run = {"onnx": run_onnx, "litert": run_litert}[kind]
    function = _make_exported_function(model, record)
    with io_files.atomic_folder(output_dir) as temporary:
        folder = pathlib.Path(temporary)
        file = folder / FILES[kind]
        if kind == "onnx":
            file.write_bytes(_to_onnx(function, record, int8=int8))
        else:
            file.write_bytes(_to_litert(function, model, int8=int8))
        report = {
            "output_dir": os.fspath(output_dir),
            "file": FILES[kind],
            "kind": kind,
            "step": record.step,
            "weights": record.weights,
            "classes": len(record.class_names),
            "parameters": int(model.count_params()),
            "int8": int8,
            "bytes": file.stat().st_size,
            "max_difference": _compare(
                function, run, file, record, int8=int8, seed=seed
            ),
        }
        if run_model is not None:
            report["max_difference_to_run_precision"] = saved_model.compare_precisions(
                model, run_model, record, seed=seed
            )
        content = {"record": record.as_dict(), "report": report}
        io_files.write_json(folder / saved_model.RECORD_FILE, content)
    return report


def run_onnx(path: str | os.PathLike[str], images: np.ndarray) -> Arrays:
    """Return the outputs of an ONNX file by ONNX Runtime on the CPU."""
    import onnxruntime  # pip install "vit_scaling[onnx]"

    session = onnxruntime.InferenceSession(
        os.fspath(path), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images}), strict=True))


def run_litert(path: str | os.PathLike[str], images: np.ndarray) -> Arrays:
    """Return the outputs of a LiteRT file by its interpreter on the CPU."""
    from ai_edge_litert.interpreter import (  # pip install "vit_scaling[litert]"
        Interpreter,
    )

    return Interpreter(os.fspath(path)).get_signature_runner()(images=images)


def _make_exported_function(
    model: keras.Model, record: RunRecord
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Return the function that is exported: float images to every numeric output."""
    compute = serving_signatures.make_numeric_function(
        serving_signatures.make_output_model(model), record
    )
    spec = tf.TensorSpec((None, *record.image_size, 3), tf.float32, name="images")

    @tf.function(input_signature=[spec], autograph=False)
    def numbers(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return compute(images)

    return numbers


def _to_onnx(function: Any, record: RunRecord, *, int8: bool) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The converter's own, of what it imports.
        import tf2onnx  # pip install "vit_scaling[onnx]"

        onnx_model, _ = tf2onnx.convert.from_function(
            function, input_signature=function.input_signature, opset=OPSET
        )
        if int8:
            onnx_model = _quantize_onnx(onnx_model)
    entry = onnx_model.metadata_props.add()
    entry.key, entry.value = "vit_scaling", json.dumps(record.as_dict())
    return onnx_model.SerializeToString()


def _quantize_onnx(model: Any) -> Any:
    """Return the ONNX model with its matrices in 8 bits, one scale per column."""
    import onnx
    import onnxruntime
    from onnxruntime import quantization
    from onnxruntime.quantization import quant_utils

    with tempfile.TemporaryDirectory() as folder:
        folded, quantized = (os.path.join(folder, name) for name in ("folded", "int8"))
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = folded
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.graph_optimization_level = level
        # Folds the reshaped kernels into constants, which alone are quantised.
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        model = onnx.load(folded)
        for node in model.graph.node:
            # Without a bias its factor has no effect, but only Gemm nodes with the
            # default factors are quantised.
            if node.op_type == "Gemm" and len(node.input) == 2:
                kept = [a for a in node.attribute if a.name != "beta"]
                del node.attribute[:]
                node.attribute.extend(kept)
        quant_utils.add_pre_process_metadata(model)  # Else it asks for this step.
        quantization.quantize_dynamic(
            model,
            quantized,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # AVX2 adds pairs of products in 16 bits.
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(quantized)


def _to_litert(function: Any, model: keras.Model, *, int8: bool) -> bytes:
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    module.numbers = function
    # By way of a SavedModel: only so does the file keep the outputs' names.
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf.saved_model.save(module, folder, signatures={"serving_default": function})
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        if int8:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()


def _compare(
    function: Callable[..., dict[str, tf.Tensor]],
    run: Callable[[pathlib.Path, np.ndarray], Arrays],
    file: pathlib.Path,
    record: RunRecord,
    *,
    int8: bool,
    seed: int,
) -> dict[str, float]:
    """Return the largest difference per output, over a batch of three and one of one.

    Raises:
        RuntimeError: An output is missing or differs by more than the tolerance.
    """
    tolerance, passed = saved_model.TOLERANCE, True
    images = saved_model.make_random_images(3, record, seed=seed)
    differences: dict[str, float] = {}
    for batch in (images, images[:1]):
        outputs, expected = run(file, batch), function(tf.constant(batch))
        if sorted(outputs) != sorted(expected):
            raise RuntimeError(
                f"The file returns {sorted(outputs)}, not {sorted(expected)}; nothing "
                "was written."
            )
        for name, value in expected.items():
            largest = np.abs(outputs[name] - value.numpy()).max()
            # Unlike max(), np.maximum keeps NaN.
            differences[name] = float(np.maximum(differences.get(name, 0.0), largest))
            if int8:
                tolerance = INT8_TOLERANCE * np.abs(value).max()
            passed = passed and bool(largest <= tolerance)  # False for NaN.
    if not passed:
        raise RuntimeError(
            f"The file's outputs differ from the model's: {differences}; nothing was "
            "written."
        )
    return differences
