"""The class token is first; registers are last and are removed again."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import tensorflow as tf

from vit_scaling.modeling import tokens


def test_the_class_token_comes_first_and_starts_at_zero():
    x = tf.ones((2, 3, 4))
    out = tokens.ClassToken()(x)
    np.testing.assert_array_equal(out, np.concatenate([np.zeros((2, 1, 4)), x], axis=1))


def test_registers_come_last_and_are_the_same_for_every_example():
    x = tf.ones((2, 3, 4))
    out = tokens.RegisterTokens(2)(x)
    assert out.shape == (2, 5, 4)
    np.testing.assert_array_equal(out[:, :3], x)
    np.testing.assert_array_equal(out[0, 3:], out[1, 3:])
    assert np.std(out[0, 3:]) > 0.0


def test_dropping_registers_restores_the_tokens():
    x = tf.random.stateless_normal((2, 3, 4), (0, 0))
    out = tokens.DropRegisters(2)(tokens.RegisterTokens(2)(x))
    np.testing.assert_array_equal(out, x)
