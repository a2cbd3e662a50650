"""Create an optimizer's variables at exact paths, which checkpoints are keyed by."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
from collections.abc import Callable
from typing import Any

import keras


def make_state_variable(
    path: str,
    *,
    shape: tuple[int, ...],
    dtype: str,
    initializer: Callable[..., Any],
    aggregation: str,
) -> keras.Variable:
    """Create a variable of exactly this path, regardless of the open name scope.

    Keras would put the weight's path, with underscores, below the open scope: neither
    unique nor stable enough to key a checkpoint.
    """
    first, *scopes, name = path.split("/")
    with contextlib.ExitStack() as stack:
        stack.enter_context(keras.name_scope(first, override_parent=""))
        for scope in scopes:
            stack.enter_context(keras.name_scope(scope))
        return keras.Variable(
            initializer=initializer,
            shape=shape,
            dtype=dtype,
            trainable=False,
            aggregation=aggregation,
            name=name,
        )
