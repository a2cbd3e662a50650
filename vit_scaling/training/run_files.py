"""The files that describe a run: model.json, run.json, config.gin, flags.txt."""
# SPDX-License-Identifier: Apache-2.0

import json
import platform
from collections.abc import Mapping

import keras
import tensorflow as tf
from etils import epath

import vit_scaling
from vit_scaling import io_files
from vit_scaling.run_record import RUN_FILE, RunRecord
from vit_scaling.training.checkpoint_files import write_failure_advice

CONFIG_FILE = "config.gin"
MODEL_FILE = "model.json"


def write_run_files(
    model_dir: epath.PathLike,
    model: keras.Model,
    record: RunRecord,
    texts: Mapping[str, str],
) -> None:
    """Write what later programs need to rebuild, serve and repeat the run.

    Args:
        model_dir: The run's folder, created if it does not exist.
        model: Its Keras configuration goes to `model.json`.
        record: Content of `run.json`.
        texts: File names and their texts, such as {"config.gin": …}.

    Raises:
        OSError: A file could not be written; an earlier one is unchanged.
    """
    files = {
        MODEL_FILE: io_files.json_text(json.loads(model.to_json())),
        RUN_FILE: io_files.json_text(record.as_dict()),
    }
    write_texts(model_dir, {**files, **texts})


def versions() -> dict[str, str]:
    """Return the versions of the packages that a run records."""
    return {
        "vit_scaling": vit_scaling.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
    }


def write_texts(model_dir: epath.PathLike, texts: Mapping[str, str]) -> None:
    """Write texts, such as {"config.gin": …}, into a run's folder, each atomically.

    Raises:
        OSError: A file could not be written; an earlier one is unchanged.
    """
    for name, text in texts.items():
        try:
            io_files.write_text(epath.Path(model_dir) / name, text)
        except OSError as error:
            raise OSError(
                f"`{name}` could not be written to `{model_dir}`: {error}. "
                f"{write_failure_advice(error)}"
            ) from error


def number_config(model_dir: epath.PathLike) -> None:
    """Copy `config.gin`, before it is replaced, to the next free `config_NNNN.gin`."""
    path = epath.Path(model_dir) / CONFIG_FILE
    copies = sorted(path.parent.glob("config_[0-9]*.gin"))
    if not path.exists() or (copies and copies[-1].read_text() == path.read_text()):
        return
    name = f"config_{len(copies) + 1:04d}.gin"
    write_texts(model_dir, {name: path.read_text()})


def read_model(model_dir: epath.PathLike) -> keras.Model:
    """Return the run's model with initial, not trained, weights.

    Layers of this package must have been imported (`vit_scaling.modeling.vit`), so that
    Keras knows their names.

    Raises:
        FileNotFoundError: The folder has no `model.json`.
    """
    path = epath.Path(model_dir) / MODEL_FILE
    if not path.exists():
        raise FileNotFoundError(
            f"`model_dir` must be the folder of a training run; `{path}` is missing."
        )
    return keras.models.model_from_json(path.read_text())
