"""What the frame of optimizers needs of TensorFlow: sums, norms, variables."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf


def sum_over_replicas(gradients: list[Any]) -> list[Any]:
    """Return the gradients summed over replicas, in replica context."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return gradients
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, gradients))


def global_norm(tensors: Sequence[Any]) -> Any:
    """Return the norm of all tensors as one vector, a float32 scalar."""
    squares = [tf.cast(tf.reduce_sum(tf.square(t)), tf.float32) for t in tensors]
    return tf.sqrt(tf.add_n(squares))


def squares_of(*tensors: Any) -> Any:
    """Return the sum of squares of each tensor, together a float32 vector."""
    sums = [tf.reduce_sum(tf.square(tensor)) for tensor in tensors]
    return tf.cast(tf.stack(sums), tf.float32)


def state_variable(
    path: str,
    *,
    shape: tuple[int, ...],
    dtype: str,
    initializer: Callable[..., Any],
    aggregation: str,
) -> keras.Variable:
    """Create a variable of exactly this path, whatever name scope is open.

    Keras would write the weight's path with underscores, below the open scope: neither
    unique nor stable enough for checkpoints that are keyed by path.
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
