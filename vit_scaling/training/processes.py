"""Agreement between the processes of a run, such as workers on several hosts."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable

import tensorflow as tf


def has_several_processes(strategy: tf.distribute.Strategy) -> bool:
    """Whether several workers each run this program in a separate process.

    On a TPU pod one program drives all hosts. Under MultiWorkerMirroredStrategy each
    worker runs its own, and an operation that only one of them starts blocks forever.
    """
    return (
        isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        and getattr(strategy.extended, "_num_workers", 1) > 1
    )


def sum_over_processes(strategy: tf.distribute.Strategy) -> Callable[[int], int]:
    """Return a function from this process's number to the sum over all processes.

    Every process must call it equally often, because each call waits for the others.
    With a single process it is `int`.
    """
    if not has_several_processes(strategy):
        return int
    local_replicas = len(strategy.extended.worker_devices)

    @tf.function(autograph=False)
    def total(number: tf.Tensor) -> tf.Tensor:
        values = strategy.run(tf.identity, args=(number,))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    # Each of a process's replicas adds the process's number once.
    return lambda number: int(total(tf.constant(number, tf.int64))) // local_replicas
