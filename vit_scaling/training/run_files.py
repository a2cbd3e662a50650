"""The files that tell what a run is: model.json, run.json, config.gin, flags.txt."""
# SPDX-License-Identifier: Apache-2.0

import json
import platform
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from etils import epath

import vit_scaling
from vit_scaling.training.checkpoint_files import json_text, remedy, write_text

MODEL_FILE = "model.json"
RUN_FILE = "run.json"


def write_run_files(
    model_dir: epath.PathLike,
    model: keras.Model,
    facts: Mapping[str, Any],
    texts: Mapping[str, str],
) -> None:
    """Write what later programs need to rebuild, serve and repeat the run.

    Args:
        model_dir: The run's folder, made if need be.
        model: Its Keras configuration goes to `model.json`.
        facts: JSON values for `run.json`, such as class names, beside the versions and
            the number of parameters.
        texts: File names and their texts, such as {"config.gin": …}.

    Raises:
        OSError: A file could not be written; what was there before still is.
    """
    parameters = sum(int(tf.size(v.value)) for v in model.trainable_variables)
    known = {
        **facts,
        "image_size": list(model.inputs[0].shape[1:3]),
        "parameters": parameters,
        "versions": {
            "vit_scaling": vit_scaling.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "python": platform.python_version(),
        },
    }
    files = {MODEL_FILE: json.loads(model.to_json()), RUN_FILE: known}
    of_json = {name: json_text(value) for name, value in files.items()}
    write_texts(model_dir, {**of_json, **texts})


def write_texts(model_dir: epath.PathLike, texts: Mapping[str, str]) -> None:
    """Write texts, such as {"config.gin": …}, into a run's folder, each whole.

    Raises:
        OSError: One could not be written; what was there before still is.
    """
    for name, text in texts.items():
        try:
            write_text(epath.Path(model_dir) / name, text)
        except OSError as error:
            raise OSError(
                f"`{name}` could not be written to `{model_dir}`: {error}. "
                f"{remedy(error)} checkpoint."
            ) from error


def read_run_facts(model_dir: epath.PathLike) -> dict[str, Any]:
    """Return what `run.json` holds.

    Raises:
        FileNotFoundError: The folder holds no run.
    """
    path = epath.Path(model_dir) / RUN_FILE
    if not path.exists():
        raise FileNotFoundError(
            f"`model_dir` must be the folder of a training run; `{path}` is missing."
        )
    return json.loads(path.read_text())


def evaluates_averages(model_dir: epath.PathLike) -> bool:
    """Return whether a run's training evaluates averaged weights, not the last ones."""
    path = epath.Path(model_dir) / RUN_FILE
    facts = json.loads(path.read_text()) if path.exists() else {}
    return bool(facts.get("evaluates_averages", False))


def read_model(model_dir: epath.PathLike) -> keras.Model:
    """Return the run's model as it was made, without its trained weights.

    Layers of this package must have been imported (`vit_scaling.modeling.vit`), so that
    Keras knows their names.

    Raises:
        FileNotFoundError: The folder holds no run.
    """
    path = epath.Path(model_dir) / MODEL_FILE
    if not path.exists():
        raise FileNotFoundError(
            f"`model_dir` must be the folder of a training run; `{path}` is missing."
        )
    return keras.models.model_from_json(path.read_text())
