"""What the processes of a run must decide alike: a number that all of them share."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable

import tensorflow as tf


def has_several_processes(strategy: tf.distribute.Strategy) -> bool:
    """Return whether workers run this program side by side, each in its process.

    On a TPU pod one program drives all hosts; under MultiWorkerMirroredStrategy each
    worker runs its own, and whatever one does alone the others wait for in vain.
    """
    return (
        isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        and getattr(strategy.extended, "_num_workers", 1) > 1
    )


def sum_over_processes(strategy: tf.distribute.Strategy) -> Callable[[int], int]:
    """Return a function from this process's number to the sum over all processes.

    Every process must call it as often as the others: it waits for them. With a single
    process it is `int`.
    """
    if not has_several_processes(strategy):
        return int
    local = len(strategy.extended.worker_devices)

    @tf.function(autograph=False)
    def total(number: tf.Tensor) -> tf.Tensor:
        each = strategy.run(tf.identity, args=(number,))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None)

    # Each of a process's replicas adds the process's number once.
    return lambda number: int(total(tf.constant(number, tf.int64))) // local
