"""Batches of every replica, and no thread that would hold up their deletion."""
# SPDX-License-Identifier: Apache-2.0

import pytest
import tensorflow as tf

from tests.training import small
from vit_scaling.batch_distribution import distribute_batches


def numbers(context):
    count = context.num_replicas_in_sync
    return tf.data.Dataset.counter().batch(4 // count, drop_remainder=True)


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_replicas_get_the_batch_in_parts(replicas):
    strategy = small.mirrored(replicas)
    iterator = iter(distribute_batches(strategy, numbers))
    for expected in ([0, 1, 2, 3], [4, 5, 6, 7]):
        parts = strategy.experimental_local_results(next(iterator))
        assert len(parts) == replicas
        assert tf.concat(parts, axis=0).numpy().tolist() == expected


def test_no_thread_tunes_the_batches():
    """Its sleep would hold up the deletion of an iterator over several devices."""
    made = []

    class Recorder:
        def distribute_datasets_from_function(self, function):
            made.append(function(tf.distribute.InputContext(1, 0, 2)))

    distribute_batches(Recorder(), numbers)
    assert made[0].options().autotune.enabled is False
