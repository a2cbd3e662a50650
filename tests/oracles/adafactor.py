"""The paper's Adafactor (§3.4) in float64 NumPy, with the authors' factored axes.

The factored second moment is written as matrices: the two largest axes are moved to the
end, and everything in front is a stack of independent matrices.
"""
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from tests.oracles.rounding import stored


def largest_axes(shape, least):
    """Return (second largest, largest) axis, of equal sizes the later one as larger."""
    if len(shape) < 2:
        return None
    order = sorted((size, axis) for axis, size in enumerate(shape))
    (second_size, second), (_, largest) = order[-2:]
    return (second, largest) if second_size >= least else None


class Adafactor:
    """Holds the state of one weight; `direction` takes the next gradient."""

    def __init__(
        self,
        shape,
        *,
        momentum=0.9,
        cap=0.999,
        clip=None,
        scale=False,
        epsilon=1e-30,
        least=32,
        first="float64",
    ):
        self.momentum, self.cap, self.clip, self.scale = momentum, cap, clip, scale
        self.epsilon, self.first = epsilon, first
        self.axes = largest_axes(shape, least)
        self.m = np.zeros(shape)
        self.t = 0
        if self.axes:
            stack = np.moveaxis(np.zeros(shape), self.axes, (-2, -1))
            self.rows, self.columns = stack[..., 0], stack[..., 0, :]
        else:
            self.v = np.zeros(shape)

    def direction(self, gradient, weights=None):
        beta2 = 1 - float(self.t + 1) ** -0.8
        beta2 = beta2 if self.cap is None else min(self.cap, beta2)
        self.t += 1
        u = self._scaled(np.asarray(gradient, np.float64), beta2)
        if self.clip is not None:
            u = u / max(1.0, np.sqrt(np.mean(u**2)) / self.clip)
        if self.scale:
            u = u * max(1e-3, np.sqrt(np.mean(np.asarray(weights) ** 2)))
        if self.momentum is not None:
            u = self.momentum * self.m + (1 - self.momentum) * u
            self.m = stored(u, self.first)
        return u

    def _scaled(self, gradient, beta2):
        if not self.axes:
            self.v = beta2 * self.v + (1 - beta2) * (gradient**2 + self.epsilon)
            return gradient / np.sqrt(self.v)
        matrices = np.moveaxis(gradient, self.axes, (-2, -1))
        squares = matrices**2 + self.epsilon
        self.rows = beta2 * self.rows + (1 - beta2) * squares.mean(axis=-1)
        self.columns = beta2 * self.columns + (1 - beta2) * squares.mean(axis=-2)
        mean = self.rows.mean(axis=-1)[..., None, None]
        v = self.rows[..., :, None] * self.columns[..., None, :] / mean
        return np.moveaxis(matrices / np.sqrt(v), (-2, -1), self.axes)

    @property
    def state(self):
        first = {} if self.momentum is None else {"first_moment": self.m}
        if not self.axes:
            return {**first, "second_moment": self.v}
        second, largest = self.axes
        # Put the axes in front back where they were, without the one averaged over.
        rest = [a for a in range(self.m.ndim) if a not in self.axes]
        row_axes, column_axes = [*rest, second], [*rest, largest]
        return {
            **first,
            "second_moment_row": self.rows.transpose(np.argsort(row_axes)),
            "second_moment_column": self.columns.transpose(np.argsort(column_axes)),
        }
