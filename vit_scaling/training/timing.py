"""How long each step takes and waits for its batch, noted by the graph as it runs."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

CAPACITY = 1024  # Steps of a loop that are kept: its last ones.
PERCENTILES = (50, 90, 99)
# A larger share of the time in `next` is worth a word.
WAITS_TOO_LONG = 0.2


class StepTimes:
    """Note when a step asks for its batch and when it has it.

    The loop runs inside the graph, where Python's clock sees only its two ends. Create
    it outside of the strategy's scope: it is this process's own.
    """

    def __init__(self, clock: Callable[[], tf.Tensor] = tf.timestamp) -> None:
        """Take a clock: a function that makes a scalar float64 tensor of seconds."""
        self._clock = clock
        self._shares: list[float] = []
        self._advised = False
        with tf.device("CPU:0"):
            self._marks = tf.Variable(tf.zeros([CAPACITY, 2], tf.float64))
            self._count = tf.Variable(0, dtype=tf.int64)

    @classmethod
    def under(cls, strategy: tf.distribute.Strategy) -> "StepTimes | None":
        """Return one for a strategy, None on TPU, where the loop may run elsewhere."""
        on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
        return None if on_tpu else cls()

    def begin(self) -> None:
        """Forget the last loop."""
        self._count.assign(0)

    def next_batch(self, iterator: Any) -> Any:
        """Return the iterator's next batch and note how long that took; in a graph."""
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
        """Return the percentiles of a step's seconds and the share spent waiting.

        Args:
            now: By the same clock, when the loop's last step has ended.

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
        figures = {
            f"step_seconds_p{percent}": float(np.percentile(seconds, percent))
            for percent in PERCENTILES
        }
        share = float(waited / max(seconds.sum(), 1e-9))
        self._shares = [*self._shares, share][-2:]
        return {**figures, "data_wait_share": share}

    def advice(self) -> str | None:
        """Return a line where the last two loops waited too long, once; else None.

        The first loop fills the pipeline: one loop alone says little.
        """
        waits = len(self._shares) == 2 and min(self._shares) > WAITS_TOO_LONG
        if not waits or self._advised:
            return None
        self._advised = True
        return (
            f"Steps spend {self._shares[-1]:.0%} of their time waiting for data: the "
            "input pipeline is the bottleneck. Give it more CPU cores, or store "
            "smaller images; `benchmark.py pipeline` shows its speed alone."
        )
