"""Models with built optimizers whose variables are random, and their bits."""
# SPDX-License-Identifier: Apache-2.0

import functools

import keras
import numpy as np

from tests.training import small
from vit_scaling.optimization.adam import Adam
from vit_scaling.optimization.momentum import Momentum
from vit_scaling.optimization.optimizer import Optimizer
from vit_scaling.training.checkpoints import Checkpoints

SCHEDULE = small.experiment().schedule
ADAM = functools.partial(Optimizer, Adam())
MOMENTUM = functools.partial(Optimizer, Momentum())
AVERAGED = functools.partial(
    Optimizer, Adam(first_moment_dtype="bfloat16"), average_decay=0.99
)


def parts(make_optimizer=ADAM, model=None, **options):
    """Return a model and a built optimizer whose state is random."""
    model = model or small.linear(3)
    optimizer = make_optimizer(SCHEDULE, **options)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def randomize(variables, seed):
    """Assign normal numbers to variables by key."""
    generator = np.random.default_rng(seed)
    for variable in variables.values():
        value = generator.normal(size=variable.shape) * 10
        variable.assign(keras.ops.cast(value, variable.dtype))


def numbers(variables):
    """Return the bytes of variables by key."""
    return {key: np.asarray(v.numpy()).tobytes() for key, v in variables.items()}


def saver(path, **options):
    """Return checkpoints that are written when `save` returns."""
    return Checkpoints(path, **{"asynchronous": False, **options})
