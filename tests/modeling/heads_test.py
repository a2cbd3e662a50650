"""Outputs of the pooling heads (§3.2)."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import tensorflow as tf

from tests.modeling.small import SHAPE, randomized
from vit_scaling.modeling import heads


def tokens(count=6):
    values = np.random.default_rng(0).standard_normal((3, count, SHAPE.width))
    return tf.constant(values, tf.float32)


def make(head):
    return heads.make_head(head, SHAPE)


def built(head):
    layer = make(head)
    layer(tokens())
    return randomized(layer)


@pytest.mark.parametrize("head", ["gap", "map"])
def test_pooling_heads_ignore_token_order(head):
    layer, order = built(head), [3, 1, 5, 0, 2, 4]
    shuffled = tf.gather(tokens(), order, axis=1)
    np.testing.assert_allclose(layer(tokens()), layer(shuffled), rtol=1e-5, atol=1e-5)


def test_the_map_head_sees_every_token():
    layer, x = built("map"), tokens()
    for number in range(6):
        changed = x.numpy()
        changed[:, number] += 1.0
        assert np.abs(layer(changed) - layer(x)).max() > 1e-4


def test_token_head_returns_the_first_token_and_needs_a_class_token():
    layer = make("token")
    np.testing.assert_array_equal(layer(tokens()), tokens()[:, 0])
    assert layer.uses_class_token
    assert not make("gap").uses_class_token
    assert not make("map").uses_class_token


def test_average_is_computed_in_float32():
    layer = heads.GapHead(dtype="bfloat16")
    x = tf.ones((1, 1000, 2), tf.bfloat16)
    np.testing.assert_array_equal(tf.cast(layer(x), tf.float32), [[1.0, 1.0]])


def test_none_has_no_layer():
    assert make("none") is None


def test_unknown_heads_and_functions_returning_other_objects_are_rejected():
    with pytest.raises(ValueError, match=r"received 'gpa'. Did you mean 'gap'"):
        make("gpa")
    with pytest.raises(TypeError, match="must return a Keras layer; it returned 3"):
        make(lambda shape: 3)
