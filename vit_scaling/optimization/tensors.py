"""What the frame of optimizers needs of TensorFlow: sums, norms, variables."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from vit_scaling import backend


def sum_over_replicas(gradients: list[Any]) -> list[Any]:
    """Return the gradients summed over replicas, in replica context."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return gradients
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, gradients))


def global_norm(tensors: Sequence[Any]) -> Any:
    """Return the norm of all tensors as one vector, a float32 scalar."""
    return tf.sqrt(tf.add_n([tf.cast(sum_of_squares(t), tf.float32) for t in tensors]))


def squares_of(*tensors: Any) -> Any:
    """Return the sum of squares of each tensor, together a float32 vector."""
    return tf.cast(tf.stack([sum_of_squares(t) for t in tensors]), tf.float32)


def sum_of_squares(tensor: Any) -> Any:
    """Return the sum of a tensor's squares, a scalar."""
    squares = tf.square(tensor)
    if _only_cpus():
        for axis in range(squares.shape.rank):
            squares = _halved(squares, axis, at_least=4096)
    return tf.reduce_sum(squares)


def mean_along(values: Any, axis: int) -> Any:
    """Return the mean along one axis, which is dropped."""
    values = tf.convert_to_tensor(values)
    if not _only_cpus():
        return tf.reduce_mean(values, axis=axis)
    # Three times: beyond that the many small slices cost more than they save.
    halved = _halved(values, axis, times=3)
    return tf.reduce_sum(halved, axis=axis) / values.shape[axis]


def _only_cpus() -> bool:
    return not (backend.targets_tpu() or tf.config.list_logical_devices("GPU"))


def _halved(values: Any, axis: int, *, at_least: int = 0, times: int = 64) -> Any:
    """Add the halves along an axis while it is even; the sum along it stays the same.

    On a CPU, XLA sums one number at a time. Adding halves first is fused into one pass
    over vectors, several times faster, and pairwise sums lose no digits. (A product of
    a tensor with itself is faster than a sum too, but 1 % off at two million numbers.)

    Args:
        values: Tensor of static shape.
        axis: Axis to shorten.
        at_least: Number of values to stop at.
        times: Most halvings.
    """
    while times and values.shape[axis] % 2 == 0 and math.prod(values.shape) > at_least:
        lower, upper = tf.split(values, 2, axis=axis)
        values, times = lower + upper, times - 1
    return values


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
