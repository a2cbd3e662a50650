"""Gradient accumulation: one update from several micro-batches, under any strategy."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from vit_scaling.argument_types import PositiveInt, check_arguments

LossAndGradients = Callable[[Any], tuple[Any, list[Any]]]


@check_arguments
def accumulate_gradients(
    loss_and_gradients: LossAndGradients, batch: Any, micro_batches: PositiveInt
) -> tuple[Any, list[Any]]:
    """Return the mean outputs and gradients over equal pieces of a replica's batch.

    Pure: no variable is kept, and the optimizer sees one update, so nothing in it (the
    reduction over replicas, clipping, schedule) knows of micro-batches. Memory is that
    of one micro-batch, plus the sum of the gradients. The loop has static shapes, so
    that XLA compiles it; the model stands in the graph once.

    Args:
        loss_and_gradients: From a micro-batch to (outputs, gradients): outputs is any
            structure of scalars, each a mean over the micro-batch's examples (a loss,
            an accuracy); gradients are of such a mean too, and may hold None. It must
            not write mirrored variables that aggregate (see tf.distribute), since it
            runs within a `tf.while_loop`.
        batch: Structure of tensors, (replica's batch, …), of static size.
        micro_batches: Number of pieces; 1 calls the function directly.

    Returns:
        The structures that `loss_and_gradients` returns, each leaf its mean over the
        micro-batches. Both are float32 or the dtype they came in.

    Raises:
        ValueError: `micro_batches` is not a positive whole number, or does not divide
            the batch, or the batch's size is not static.
    """
    if micro_batches == 1:
        return loss_and_gradients(batch)
    pieces = tf.nest.map_structure(lambda leaf: _split(leaf, micro_batches), batch)

    def piece(number: Any) -> Any:
        return tf.nest.map_structure(lambda leaf: leaf[number], pieces)

    def flat_step(micro_batch: Any) -> list[Any]:
        outputs, gradients = loss_and_gradients(micro_batch)
        structure[:] = [(outputs, list(gradients))]
        # A gradient may come as IndexedSlices: one leaf, and a dense one from here on.
        leaves = [*tf.nest.flatten(outputs), *gradients]
        return [tf.convert_to_tensor(leaf) for leaf in leaves if leaf is not None]

    structure: list[Any] = []
    # Traced here, once: the loop needs the shapes of what it sums before it starts.
    traced = tf.function(flat_step, autograph=False).get_concrete_function(piece(0))
    sums = [tf.zeros(leaf.shape, leaf.dtype) for leaf in traced.structured_outputs]
    _, sums = tf.while_loop(
        lambda number, _: number < micro_batches,
        lambda number, sums: (
            number + 1,
            [a + b for a, b in zip(sums, traced(piece(number)), strict=True)],
        ),
        (tf.constant(0), sums),
        parallel_iterations=1,
        maximum_iterations=micro_batches,
    )
    outputs, gradients = structure[0]
    means = iter([total / micro_batches for total in sums])
    outputs = tf.nest.map_structure(lambda _: next(means), outputs)
    return outputs, [None if g is None else next(means) for g in gradients]


def _split(leaf: Any, micro_batches: int) -> Any:
    leaf = tf.convert_to_tensor(leaf)
    size = leaf.shape[0] if leaf.shape.rank else None
    if size is None or size % micro_batches:
        raise ValueError(
            "`micro_batches` must divide every replica's batch, of a size known when "
            f"the step is traced; received micro_batches={micro_batches} and a "
            f"tensor of shape {tuple(leaf.shape)}. Choose another number, or a batch "
            "with static shape (drop_remainder=True)."
        )
    return tf.reshape(leaf, [micro_batches, size // micro_batches, *leaf.shape[1:]])
