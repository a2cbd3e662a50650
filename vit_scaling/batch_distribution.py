"""Distribute batches over a strategy's replicas."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def distribute_batches(
    strategy: tf.distribute.Strategy,
    make_batches: Callable[[tf.distribute.InputContext], tf.data.Dataset],
) -> Any:
    """Return distributed batches, without the thread that tunes a data set.

    Deleting an iterator over several devices waits until that thread wakes up, in up to
    a minute, and keeps a thread of TensorFlow's pool from other work meanwhile. This
    package's pipelines have nothing to tune.

    Args:
        strategy: Has the replicas.
        make_batches: Returns the batches of a host's replicas, one after the other.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return strategy.distribute_datasets_from_function(
        lambda context: make_batches(context).with_options(options)
    )
