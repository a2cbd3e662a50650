"""Lion in float64 NumPy, from Chen et al. 2023 (Algorithm 2), without weight decay."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from tests.oracles.rounding import stored


class Lion:
    """Holds m of one weight; `direction` takes the next gradient."""

    def __init__(self, shape, *, beta1=0.9, beta2=0.99, first="float64"):
        self.m = np.zeros(shape)
        self.beta1, self.beta2, self.first = beta1, beta2, first

    def direction(self, gradient, weights=None):
        del weights
        interpolated = self.beta1 * self.m + (1 - self.beta1) * gradient
        m = self.beta2 * self.m + (1 - self.beta2) * gradient
        self.m = stored(m, self.first)
        return np.sign(interpolated)

    @property
    def state(self):
        return {"first_moment": self.m}
