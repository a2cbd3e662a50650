"""Weights, gradients and comparisons that the optimizers' tests share."""
# SPDX-License-Identifier: Apache-2.0

import contextlib

import keras
import numpy as np
import tensorflow as tf

STEPS = 20

# Ranks 0 to 4; square, tied and sorted either way; around the factoring limit of 32;
# the kinds of weights a ViT has (attention, patches, positions), at small sizes.
SHAPES = (
    (),
    (1,),
    (31,),
    (33,),
    (4, 5),
    (31, 40),
    (40, 31),
    (32, 32),
    (32, 33),
    (33, 32),
    (40, 40),
    (4, 40, 36),
    (40, 4, 36),
    (36, 40, 4),
    (33, 33, 33),
    (1, 49, 40),
    (4, 4, 3, 40),
    (32, 32, 3, 40),
    (2, 36, 3, 36),
)


def weights_for(shape, seed=0):
    """Return initial weights, with values that float32 holds exactly."""
    rng = np.random.default_rng([seed, *shape])
    return rng.normal(size=shape).astype(np.float32).astype(np.float64)


def gradients_for(shape, seed=1, steps=STEPS):
    """Return gradients of changing size, one of them all zero and one zero in part."""
    rng = np.random.default_rng([seed, *shape])
    gradients = [
        rng.normal(size=shape) * 10.0 ** rng.uniform(-4, 1) for _ in range(steps)
    ]
    gradients[3] = np.zeros(shape)
    gradients[5] = gradients[5] * (rng.uniform(size=shape) < 0.5)
    return [g.astype(np.float32).astype(np.float64) for g in gradients]


def variable_at(path, value):
    """Return a variable of a path with slashes, as layers within layers make them."""
    *scopes, name = path.split("/")
    with contextlib.ExitStack() as stack:
        for scope in scopes:
            stack.enter_context(keras.name_scope(scope))
        return keras.Variable(value, dtype=str(value.dtype), name=name)


def variables_for(shapes):
    """Return a float32 variable per shape, at weight_00/kernel and so on."""
    return [
        variable_at(f"weight_{i:02d}/kernel", weights_for(shape).astype(np.float32))
        for i, shape in enumerate(shapes)
    ]


def traced_apply(optimizer, variables, *, jit_compile=None):
    """Return a traced function of gradients that makes one step of the optimizer."""
    return tf.function(
        lambda gradients: optimizer.apply(gradients, variables), jit_compile=jit_compile
    )


def state_of(optimizer, variable):
    """Return the optimizer's state of a variable, slot name to NumPy array."""
    start = f"{optimizer.name}/{variable.path}/"
    return {
        v.path.removeprefix(start): np.asarray(v.value)
        for v in optimizer.variables
        if v.path.startswith(start)
    }


def relative_error(actual, expected):
    """Return |actual - expected| over |expected|, norms over the whole weight."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    norm = np.linalg.norm(expected.ravel())
    return np.linalg.norm((actual - expected).ravel()) / (norm or 1.0)


def bfloat16_step(values):
    """Return the distance from the magnitude of each value to bfloat16's next one."""
    # Eight significant bits: numbers in [2^e, 2^(e+1)) stand 2^(e-7) apart.
    _, exponent = np.frexp(values)
    return np.ldexp(1.0, exponent - 8)
