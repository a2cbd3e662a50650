"""Times of single steps and of their waits for a batch, noted in the graph."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

CAPACITY = 1024  # Number of a loop's last steps that are kept.
PERCENTILES = (50, 90, 99)
MAX_WAIT_FRACTION = 0.2  # Of the time; above it the input pipeline is too slow.


class StepTimes:
    """Notes when a step asks for its batch and when it receives it.

    The loop runs inside the graph, where Python's clock sees only its two ends. Create
    the object outside the strategy's scope, since its variables belong to the process.
    """

    def __init__(self, clock: Callable[[], tf.Tensor] = tf.timestamp) -> None:
        """Create the variables.

        Args:
            clock: Returns a scalar float64 tensor of seconds.
        """
        self._clock = clock
        self._wait_fractions: list[float] = []
        self._has_advised = False
        with tf.device("CPU:0"):
            self._marks = tf.Variable(tf.zeros([CAPACITY, 2], tf.float64))
            self._count = tf.Variable(0, dtype=tf.int64)

    @classmethod
    def for_strategy(cls, strategy: tf.distribute.Strategy) -> "StepTimes | None":
        """Return an object, or None on TPU, where the loop may run on another host."""
        on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
        return None if on_tpu else cls()

    def begin(self) -> None:
        """Start a new loop."""
        self._count.assign(0)

    def next_batch(self, iterator: Any) -> Any:
        """Return the iterator's next batch and note the time it took, in the graph."""
        asked = self._clock()
        with tf.control_dependencies([asked]):
            batch = next(iterator)
        with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
            received = self._clock()
        number = self._count.assign_add(1, read_value=True) - 1
        self._marks.scatter_nd_update(
            tf.reshape(number % CAPACITY, [1, 1]), [tf.stack([asked, received])]
        )
        return batch

    def report(self, now: float) -> dict[str, float]:
        """Return percentiles of a step's seconds and the fraction spent waiting.

        Args:
            now: Time of the same clock when the loop's last step ended.

        Returns:
            {"step_seconds_p50", …, "data_wait_share" in [0, 1]}; empty before any step.
        """
        count = int(self._count.numpy())
        if not count:
            return {}
        first = max(0, count - CAPACITY)
        order = np.arange(first, count) % CAPACITY
        marks = self._marks.numpy()[order]  # (steps, 2)
        seconds = np.diff(marks[:, 0], append=now)  # (steps,)
        waited = (marks[:, 1] - marks[:, 0]).sum()
        percentiles = {
            f"step_seconds_p{percent}": float(np.percentile(seconds, percent))
            for percent in PERCENTILES
        }
        fraction = float(waited / max(seconds.sum(), 1e-9))
        self._wait_fractions = [*self._wait_fractions, fraction][-2:]
        return {**percentiles, "data_wait_share": fraction}

    def advice(self) -> str | None:
        """Return a line, once, if the last two loops waited too long; else None.

        A single loop is not enough, because the first one fills the pipeline.
        """
        fractions = self._wait_fractions
        waits = len(fractions) == 2 and min(fractions) > MAX_WAIT_FRACTION
        if not waits or self._has_advised:
            return None
        self._has_advised = True
        return (
            f"Steps spend {fractions[-1]:.0%} of their time waiting for data: the "
            "input pipeline is the bottleneck. Give it more CPU cores, or store "
            "smaller images; `benchmark.py pipeline` shows its speed alone."
        )
