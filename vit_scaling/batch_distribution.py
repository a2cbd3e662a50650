"""Distribute batches over a strategy's replicas, without threads that tune them."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

_lock = threading.Lock()


class DistributedBatches:
    """Batches of a strategy's replicas; iterating starts no thread that tunes them.

    Such a thread sleeps for up to a minute. TensorFlow wakes it to delete its iterator,
    but it may look too early and go on sleeping, while the program waits; this happens
    wherever Python collects its garbage. An iterator over replicas has one such thread,
    and one more on each replica for a data set whose options only TensorFlow sees.

    Args:
        strategy: Has the replicas.
        make_batches: Returns the batches of a host's replicas, one after the other.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        make_batches: Callable[[tf.distribute.InputContext], tf.data.Dataset],
    ) -> None:
        self._dataset = strategy.distribute_datasets_from_function(
            lambda context: without_tuning(make_batches(context))
        )

    def __iter__(self) -> Any:
        """Return an iterator over the batches, which a `tf.function` may get."""
        with _untuned_iterators():
            return iter(self._dataset)


def without_tuning(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Return the data set without the thread that tunes its numbers.

    This package's pipelines have nothing to tune.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


@contextlib.contextmanager
def _untuned_iterators() -> Iterator[None]:
    """Tune no data set of which an iterator is made, also inside of TensorFlow."""
    with _lock:
        make_iterator = tf.data.Dataset.__iter__
        tf.data.Dataset.__iter__ = lambda batches: make_iterator(
            without_tuning(batches)
        )
        try:
            yield
        finally:
            tf.data.Dataset.__iter__ = make_iterator
