"""Floating-point operations of a model, counted in its traced graph."""
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

_MATRIX_PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
_PRODUCTS = {*_MATRIX_PRODUCTS, "Einsum", "Conv2D", "DepthwiseConv2dNative"}


def training_flops_per_image(model: keras.Model) -> float:
    """Return the operations of one training step per image: three times the forward's.

    The backward pass takes two products for each product of the forward pass. Matrix
    products and convolutions are counted, a multiplication and an addition as two
    operations. Element-wise operations and rematerialized blocks are not counted.

    Args:
        model: Takes one tensor of images; any Keras model, not only ours.
    """
    return 3.0 * forward_flops(model)


def forward_flops(model: keras.Model) -> float:
    """Return the operations of one image's forward pass, of products only."""
    images = model.inputs[0]
    forward = tf.function(lambda x: model(x, training=False), autograph=False)
    spec = tf.TensorSpec([1, *images.shape[1:]], images.dtype)
    graph = forward.get_concrete_function(spec).graph
    return float(sum(_flops_of(operation) for operation in _operations(graph)))


def _operations(graph: Any) -> Iterator[Any]:
    """Yield the operations of a graph and of the functions that it calls."""
    for operation in graph.get_operations():
        yield operation
        if operation.type in ("PartitionedCall", "StatefulPartitionedCall"):
            called = operation.get_attr("f").name
            yield from _operations(graph._get_function(called).graph)


def _flops_of(operation: Any) -> float:
    kind: str = operation.type
    if kind not in _PRODUCTS:
        return 0.0
    output = operation.outputs[0].shape
    if kind == "Einsum":
        return 2.0 * math.prod(_einsum_sizes(operation).values())
    if kind == "Conv2D":  # Each output value is a product with one filter.
        return 2.0 * math.prod(output) * math.prod(operation.inputs[1].shape[:3])
    if kind == "DepthwiseConv2dNative":
        return 2.0 * math.prod(output) * math.prod(operation.inputs[1].shape[:2])
    flipped = operation.get_attr("transpose_a" if kind == "MatMul" else "adj_x")
    return 2.0 * math.prod(output) * operation.inputs[0].shape[-2 if flipped else -1]


def _einsum_sizes(operation: Any) -> dict[str, int]:
    """Return the size of each letter of an einsum of two tensors."""
    terms = operation.get_attr("equation").decode().partition("->")[0].split(",")
    return {
        letter: size
        for term, tensor in zip(terms, operation.inputs, strict=True)
        for letter, size in zip(term, tensor.shape, strict=True)
    }
