"""Distribute batches over a strategy's replicas, without a thread that tunes them."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def without_tuning(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Return the data set without the thread that tunes its numbers.

    Deleting an iterator over several devices waits until that thread wakes up, in up to
    a minute, and keeps a thread of TensorFlow's pool from other work meanwhile. This
    package's pipelines have nothing to tune.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def distribute_batches(
    strategy: tf.distribute.Strategy,
    make_batches: Callable[[tf.distribute.InputContext], tf.data.Dataset],
) -> Any:
    """Return distributed batches of any data set, see `without_tuning`.

    Args:
        strategy: Has the replicas.
        make_batches: Returns the batches of a host's replicas, one after the other.
    """
    return strategy.distribute_datasets_from_function(
        lambda context: without_tuning(make_batches(context))
    )
