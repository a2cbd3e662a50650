"""SGD with momentum in float64 NumPy, as the authors' code has it: m = g + 0.9 m."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from tests.oracles.rounding import stored


class Momentum:
    """Holds the trace of one weight; `direction` takes the next gradient."""

    def __init__(self, shape, *, momentum=0.9, nesterov=False, first="float64"):
        self.m = np.zeros(shape)
        self.momentum, self.nesterov, self.first = momentum, nesterov, first

    def direction(self, gradient, weights=None):
        del weights
        m = gradient + self.momentum * self.m
        self.m = stored(m, self.first)
        return gradient + self.momentum * m if self.nesterov else m

    @property
    def state(self):
        return {"first_moment": self.m}
