"""Gradient accumulation equals the whole batch, and refuses what does not divide."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import tensorflow as tf

from vit_scaling.optimization.accumulation import accumulate_gradients

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(12, 5)).astype(np.float32)
TARGETS = RNG.normal(size=(12, 3)).astype(np.float32)


def problem():
    kernel = tf.Variable(RNG.normal(size=(5, 3)).astype(np.float32))
    unused = tf.Variable(1.0)

    def loss_and_gradients(batch):
        with tf.GradientTape() as tape:
            error = batch["inputs"] @ kernel - batch["targets"]
            loss = tf.reduce_mean(tf.square(error))
        outputs = {"loss": loss, "parts": [tf.reduce_mean(error), loss * 2.0]}
        return outputs, tape.gradient(loss, [kernel, unused])

    return loss_and_gradients, {"inputs": INPUTS, "targets": TARGETS}


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("micro_batches", [1, 2, 3, 12])
def test_pieces_make_the_whole_batchs_gradient(micro_batches, jit_compile):
    loss_and_gradients, batch = problem()
    outputs, gradients = loss_and_gradients(batch)
    accumulate = tf.function(
        lambda b: accumulate_gradients(loss_and_gradients, b, micro_batches),
        jit_compile=jit_compile,
    )
    got_outputs, got_gradients = accumulate(batch)
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        got_outputs,
        outputs,
    )
    assert got_gradients[1] is None
    np.testing.assert_allclose(got_gradients[0], gradients[0], rtol=1e-5, atol=1e-6)


def test_it_also_runs_eagerly():
    loss_and_gradients, batch = problem()
    _, (whole, _) = loss_and_gradients(batch)
    _, (pieces, _) = accumulate_gradients(loss_and_gradients, batch, 4)
    np.testing.assert_allclose(pieces, whole, rtol=1e-5, atol=1e-6)


def test_sparse_gradients_become_dense():
    table = tf.Variable(RNG.normal(size=(7, 2)).astype(np.float32))

    def loss_and_gradients(indices):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.gather(table, indices) ** 2)
        return loss, tape.gradient(loss, [table])

    indices = tf.constant([1, 3, 3, 0])
    _, (whole,) = loss_and_gradients(indices)
    _, (pieces,) = accumulate_gradients(loss_and_gradients, indices, 2)
    np.testing.assert_allclose(pieces, tf.convert_to_tensor(whole), rtol=1e-5)


def test_the_model_stands_in_the_graph_once():
    loss_and_gradients, batch = problem()
    graph = (
        tf.function(lambda b: accumulate_gradients(loss_and_gradients, b, 6))
        .get_concrete_function(tf.nest.map_structure(tf.constant, batch))
        .graph
    )
    functions = graph.as_graph_def().library.function
    nodes = [*graph.as_graph_def().node, *(n for f in functions for n in f.node_def)]
    # The forward product and the one of its gradient, in the loop's body.
    assert sum(node.op == "MatMul" for node in nodes) == 2


@pytest.mark.parametrize("micro_batches", [5, 24])
def test_pieces_must_be_equal(micro_batches):
    loss_and_gradients, batch = problem()
    with pytest.raises(ValueError, match="must divide every replica's batch"):
        accumulate_gradients(loss_and_gradients, batch, micro_batches)


def test_the_batchs_size_must_be_static():
    loss_and_gradients, _ = problem()
    specs = {
        "inputs": tf.TensorSpec([None, 5]),
        "targets": tf.TensorSpec([None, 3]),
    }
    with pytest.raises(ValueError, match="known when the step is traced"):
        tf.function(
            lambda b: accumulate_gradients(loss_and_gradients, b, 2)
        ).get_concrete_function(specs)


@pytest.mark.parametrize("micro_batches", [0, -1, 1.5, True])
def test_the_number_of_pieces_is_checked(micro_batches):
    loss_and_gradients, batch = problem()
    with pytest.raises(ValueError, match="`micro_batches` must be"):
        accumulate_gradients(loss_and_gradients, batch, micro_batches)
