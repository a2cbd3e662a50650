"""Files of a run's adapters alone, to use with the weights that it started from."""
# SPDX-License-Identifier: Apache-2.0

import os
from typing import Any

import keras
import numpy as np
from etils import epath

from vit_scaling import adapters, array_files
from vit_scaling.array_files import Arrays
from vit_scaling.naming import list_some
from vit_scaling.training.run_weights import read_weights

_OPTIMIZER = "optimizer/"


def export_adapter(
    model_dir: str | os.PathLike[str],
    output: str,
    *,
    averages: bool | None = None,
    step: int | None = None,
) -> dict[str, Any]:
    """Write what a run with adapters trained: adapters and classifier, by path.

    Args:
        model_dir: Folder of a run of `gin/finetuning/lora.gin`.
        output: File to write, `.safetensors` or `.npz`.
        averages: Averaged weights (True) or the last ones; None takes those that the
            run evaluates.
        step: Which checkpoint; None takes the newest.

    Returns:
        `output`, `arrays`, `parameters` and `bytes` of the file.

    Raises:
        FileNotFoundError: The run has no checkpoint (of that step).
        ValueError: The run has no adapters, or the file's suffix is another.
    """
    write = _writer(output)
    keyed, manifest = read_weights(model_dir, averages=averages, step=step)
    values = {key.removeprefix("model/"): value for key, value in keyed.items()}
    if not any(map(adapters.is_adapter, values)):
        raise ValueError(
            f"The run in {os.fspath(model_dir)} has no adapters; it was trained "
            "without --lora_rank. Leave out --adapter to export all of its weights."
        )
    # What has optimizer state was trained.
    states = [key for key in manifest["variables"] if key.startswith(_OPTIMIZER)]
    chosen = {
        path: value
        for path, value in values.items()
        if adapters.is_adapter(path) or any(f"/{path}/" in state for state in states)
    }
    write(output, chosen)
    return {
        "output": output,
        "arrays": len(chosen),
        "parameters": sum(value.size for value in chosen.values()),
        "bytes": epath.Path(output).stat().length,
    }


def load_adapter(model: keras.Model, path: str) -> None:
    """Merge a file of `export_adapter` into a model with the weights it started from.

    Args:
        model: A ViT without adapters, with the run's classes and image size.
        path: The file.

    Raises:
        ValueError: The file has a variable that the model lacks, or one of another
            shape; the model is unchanged then.
        FileNotFoundError: The file does not exist.
    """
    values: Arrays = {v.path: np.asarray(v) for v in model.variables}
    shapes = {p: value.shape for p, value in values.items()}
    values |= _read(path)
    wrong = [
        name
        for name, value in values.items()
        if not adapters.is_adapter(name) and shapes.get(name) != value.shape
    ]
    lost = [
        name
        for name in filter(adapters.is_adapter, values)
        if f"{name.rpartition('/')[0]}/kernel" not in shapes
    ]
    if wrong or lost:
        raise ValueError(
            f"{path!r} is not an adapter of model {model.name!r}, which lacks, or has "
            f"in another shape, {list_some([*wrong, *lost])}. Build the model with the "
            "run's shape, classes and image size."
        )
    merged = adapters.merge(values)
    for variable in model.variables:
        variable.assign(merged[variable.path])


def _writer(output: str) -> Any:
    if output.endswith(".npz"):
        return array_files.write_npz
    if output.endswith(".safetensors"):
        return lambda path, arrays: array_files.write_safetensors(
            path, arrays, {"format": "np"}
        )
    raise ValueError(
        f"An adapter is written as .safetensors or .npz; received {output!r}."
    )


def _read(path: str) -> Arrays:
    if path.endswith(".npz"):
        return array_files.read_npz(path)
    return array_files.read_safetensors(path)[0]
