"""The variables of a run that its checkpoints hold, keyed by path."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from etils import epath

GLOBAL_STEP = "run/global_step"


def variables_of(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer | None = None,
    global_step: Any = None,
) -> dict[str, Any]:
    """Return the variables that a checkpoint holds, by key.

    Averaged weights are keyed by the path of the weight they average, so that they can
    be read without the optimizer.

    Raises:
        ValueError: Two variables have the same path.
    """
    keyed = [(f"model/{variable.path}", variable) for variable in model.variables]
    if optimizer is not None:
        trainable = model.trainable_variables
        averages = optimizer.averages(trainable) or []
        averaged = {id(average) for average in averages}
        keyed += [
            (f"averages/{variable.path}", average)
            for variable, average in zip(trainable, averages, strict=False)
        ]
        keyed += [
            (f"optimizer/{variable.path}", variable)
            for variable in optimizer.variables
            if id(variable) not in averaged
        ]
    if global_step is not None:
        keyed.append((GLOBAL_STEP, global_step))
    variables = dict(keyed)
    if len(variables) != len(keyed):
        keys = [key for key, _ in keyed]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        raise ValueError(
            "Variable paths must be unique to be checkpoint keys; more than one "
            f"variable is called {', '.join(repeated[:5])}. Give every layer its own "
            "name."
        )
    return variables


def read_variables(variables: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """Return the present values as tensors in the host's memory.

    On a CPU a tensor is the variable's own memory, which TensorFlow copies when the
    variable is updated while the tensor exists.
    """
    with tf.device("CPU:0"):
        return {key: tf.identity(value) for key, value in variables.items()}


def assign_values(
    variables: Mapping[str, Any], values: Mapping[str, np.ndarray]
) -> None:
    """Assign values to variables of the same keys, on every replica.

    Each replica's copy is assigned directly, which takes a fraction of the time of
    `assign` of the variable that holds the copies.
    """
    for key, variable in variables.items():
        if isinstance(variable, keras.Variable):
            variable = variable.value
        value = tf.cast(values[key], variable.dtype)
        copies = [variable]
        strategy = getattr(variable, "distribute_strategy", None)
        if strategy is not None:
            copies = strategy.experimental_local_results(variable)
        for copy in copies:
            copy.assign(value, read_value=False)


def check_same_variables(
    folder: epath.Path, variables: Mapping[str, Any], values: Mapping[str, np.ndarray]
) -> None:
    """Check that a checkpoint has the variables of a run.

    Args:
        folder: The checkpoint, for the message.
        variables: The run's variables by key.
        values: The checkpoint's values by key.

    Raises:
        ValueError: Keys or shapes differ.
    """
    missing = sorted(set(variables) - set(values))
    unknown = sorted(set(values) - set(variables))
    reshaped = [
        f"{key} is {tuple(values[key].shape)} there and {tuple(variable.shape)} here"
        for key, variable in sorted(variables.items())
        if key in values and tuple(values[key].shape) != tuple(variable.shape)
    ]
    if missing or unknown or reshaped:
        parts = [f"not in the checkpoint: {', '.join(missing[:3])}"] if missing else []
        parts += [f"not in this run: {', '.join(unknown[:3])}"] if unknown else []
        parts += reshaped[:3]
        raise ValueError(
            f"`model_dir` holds another model or optimizer: `{folder}` differs in "
            f"{len(missing) + len(unknown) + len(reshaped)} variables "
            f"({'; '.join(parts)}). Take a new --model_dir, or the configuration that "
            "wrote this one (its config.gin)."
        )
