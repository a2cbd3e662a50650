"""The weights of a trained run, read from its checkpoints."""
# SPDX-License-Identifier: Apache-2.0

import sys
from typing import Any

import keras
import numpy as np
from etils import epath

from vit_scaling import adapters
from vit_scaling.run_record import uses_averages
from vit_scaling.training.checkpoint_files import (
    checkpoint_folder,
    read_newest,
    step_folders,
)
from vit_scaling.training.checkpoint_variables import (
    assign_values,
    check_same_variables,
    variables_of,
)
from vit_scaling.training.checkpoints import FOLDER


def restore_model(
    model: keras.Model,
    model_dir: epath.PathLike,
    *,
    averages: bool | None = None,
    step: int | None = None,
) -> int:
    """Assign a run's weights to a model of the same shape; return their step.

    All programs read a run's weights here. Adapters are merged into the kernels, unless
    the model has adapters. Standard error says whether averages were taken, if saved.

    Args:
        model: Built as the run's model was, under any strategy and precision.
        model_dir: The run's folder.
        averages: Whether averaged weights are taken instead of the last ones. None:
            those that the run itself evaluates, as its `run.json` says.
        step: Which checkpoint. None takes the newest complete one.

    Raises:
        FileNotFoundError: The run has no checkpoint (of that step).
        ValueError: The checkpoint is of another model, or has no averages.
        CorruptCheckpointError: It is damaged, and so are all before it.
    """
    values, manifest = read_weights(model_dir, averages=averages, step=step)
    variables, step = variables_of(model), int(manifest["step"])
    if not any(map(adapters.is_adapter, variables)):
        values = adapters.merge(values)
    folder = checkpoint_folder(epath.Path(model_dir) / FOLDER, step)
    check_same_variables(folder, variables, values)
    assign_values(variables, values)
    return step


def read_weights(
    model_dir: epath.PathLike,
    *,
    averages: bool | None = None,
    step: int | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return a run's weights by key ("model/PATH"), and the checkpoint's manifest.

    Adapters are not merged. For arguments and errors see `restore_model`.
    """
    directory = epath.Path(model_dir) / FOLDER
    steps = step_folders(directory) if step is None else [step]
    if not steps:
        raise FileNotFoundError(
            f"`model_dir` must hold a trained run; `{directory}` has no checkpoint."
        )
    values, manifest = read_newest(directory, steps, prefixes=["model/", "averages/"])
    folder = checkpoint_folder(directory, manifest["step"])
    names = [key for key in values if key.startswith("averages/")]
    averaged = {key.replace("averages", "model", 1): values.pop(key) for key in names}
    takes_averages = uses_averages(model_dir, averages)
    if takes_averages and not averaged:
        asked = "run.json" if averages is None else "`averages`"
        raise ValueError(
            f"{asked} asks for averaged weights, and `{folder}` holds none. Take the "
            "last weights by averages=False (--no-averages), or bind the optimizer's "
            "`average_decay` when training."
        )
    values |= averaged if takes_averages else {}
    if averaged:
        kind = "averaged" if takes_averages else "last"
        why = "as the run evaluates them" if averages is None else "as requested"
        print(
            f"{model_dir}: {kind} weights of step {manifest['step']:,}, {why}.",
            file=sys.stderr,
        )
    return values, manifest
