"""Sums, means and norms of tensors, over replicas and in few passes on CPUs."""
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf

from vit_scaling import backend

GradientDtype = Literal["float32", "bfloat16"]


def exchange_gradients(gradients: Sequence[Any], dtype: GradientDtype) -> list[Any]:
    """Return the gradients summed over replicas, in their own dtypes.

    This is the only communication of a training step. Called in replica context, it
    uses the strategy's own sum. A single replica's gradients are returned unchanged.

    Args:
        gradients: Tensors.
        dtype: "float32" sends every gradient in its own dtype, that of its weight.
            "bfloat16" rounds it before the sum, which halves the bytes sent.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return list(gradients)
    sent = [tf.cast(g, tf.bfloat16) if dtype == "bfloat16" else g for g in gradients]
    sums = context.all_reduce(tf.distribute.ReduceOp.SUM, sent)
    return [tf.cast(s, g.dtype) for s, g in zip(sums, gradients, strict=True)]


def global_norm(tensors: Sequence[Any]) -> Any:
    """Return the norm of all tensors as one vector, a float32 scalar."""
    squares = backend.share_program("sum_of_squares", sum_of_squares)
    return tf.sqrt(tf.add_n([tf.cast(squares(t), tf.float32) for t in tensors]))


def sums_of_squares(*tensors: Any) -> Any:
    """Return the sum of squares of each tensor, as a float32 vector."""
    return tf.cast(tf.stack([sum_of_squares(t) for t in tensors]), tf.float32)


def sum_of_squares(tensor: Any) -> Any:
    """Return the sum of a tensor's squares, a scalar."""
    squares = tf.square(tensor)
    if backend.has_only_cpus():
        for axis in range(squares.shape.rank):
            squares = _add_halves(squares, axis, min_size=4096)
    return tf.reduce_sum(squares)


def mean_along(values: Any, axis: int) -> Any:
    """Return the mean along one axis, which is dropped."""
    values = tf.convert_to_tensor(values)
    if not backend.has_only_cpus():
        return tf.reduce_mean(values, axis=axis)
    # More than three halvings cost more, in small slices, than they save.
    halved = _add_halves(values, axis, times=3)
    return tf.reduce_sum(halved, axis=axis) / values.shape[axis]


def _add_halves(values: Any, axis: int, *, min_size: int = 0, times: int = 64) -> Any:
    """Add the halves along an axis while it is even; the sum along it stays the same.

    On a CPU, XLA sums one number at a time. Adding halves first is fused into one pass
    over vectors, which is several times faster, and pairwise sums lose no digits. (A
    product of a tensor with itself is fast too, but 1 % off at two million numbers.)

    Args:
        values: Tensor of static shape.
        axis: Axis to shorten.
        min_size: Stop when at most this number of values is left.
        times: Maximum number of halvings.
    """
    while times and values.shape[axis] % 2 == 0 and math.prod(values.shape) > min_size:
        lower, upper = tf.split(values, 2, axis=axis)
        values, times = lower + upper, times - 1
    return values
