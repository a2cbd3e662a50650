"""Adam in float64 NumPy, from Kingma & Ba 2015 (Algorithm 1).

The moments are kept as they would be stored (bfloat16 for Adam-HP's first); the values
that make the update are the ones before that rounding.
"""
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from tests.oracles.rounding import stored


class Adam:
    """Holds m and v of one weight; `direction` takes the next gradient."""

    def __init__(
        self,
        shape,
        *,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
        first="float64",
        second="float64",
    ):
        self.m, self.v = np.zeros(shape), np.zeros(shape)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.first, self.second = first, second
        self.t = 0

    def direction(self, gradient, weights=None):
        del weights
        self.t += 1
        m = self.beta1 * self.m + (1 - self.beta1) * gradient
        v = self.beta2 * self.v + (1 - self.beta2) * gradient * gradient
        m_hat = m / (1 - self.beta1**self.t)
        v_hat = v / (1 - self.beta2**self.t)
        self.m, self.v = stored(m, self.first), stored(v, self.second)
        return m_hat / (np.sqrt(v_hat) + self.epsilon)

    @property
    def state(self):
        return {"first_moment": self.m, "second_moment": self.v}
