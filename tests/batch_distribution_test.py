"""Batches of every replica, and no thread that would hold up their deletion."""
# SPDX-License-Identifier: Apache-2.0

import concurrent.futures

import pytest
import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops

from tests.training import small
from vit_scaling.batch_distribution import DistributedBatches


def numbers(context):
    count = context.num_replicas_in_sync
    return tf.data.Dataset.counter().batch(4 // count, drop_remainder=True)


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_replicas_get_the_batch_in_parts(replicas):
    strategy = small.mirrored(replicas)
    iterator = iter(DistributedBatches(strategy, numbers))
    for expected in ([0, 1, 2, 3], [4, 5, 6, 7]):
        parts = strategy.experimental_local_results(next(iterator))
        assert len(parts) == replicas
        assert tf.concat(parts, axis=0).numpy().tolist() == expected


@pytest.mark.parametrize("replicas", [1, 2])
def test_no_thread_tunes_the_batches(replicas, monkeypatch):
    """Its sleep would hold up the deletion of an iterator, for up to a minute."""
    sources, iterated = [], []
    make_iterator = tf.data.Dataset.__iter__

    def record(dataset):
        iterated.append(dataset)
        return make_iterator(dataset)

    monkeypatch.setattr(tf.data.Dataset, "__iter__", record)
    make_source = multi_device_iterator_ops.OwnedMultiDeviceIterator.__init__

    def record_source(self, dataset=None, *others, **options):
        if dataset is not None:
            sources.append(dataset)
        make_source(self, dataset, *others, **options)

    monkeypatch.setattr(
        multi_device_iterator_ops.OwnedMultiDeviceIterator, "__init__", record_source
    )
    batches = DistributedBatches(small.mirrored(replicas), numbers)
    next(iter(batches))
    assert len(sources) == 1  # For the host; then one for each replica.
    assert len(iterated) == replicas
    for dataset in sources + iterated:
        assert dataset.options().autotune.enabled is False
    assert tf.data.Dataset.__iter__ is record  # As before.
    next(iter(tf.data.Dataset.range(3)))
    assert (
        iterated[-1].options().autotune.enabled is None
    )  # The set of another library.


def test_threads_that_begin_iterators_do_not_disturb_each_other():
    made = tf.data.Dataset.__iter__
    batches = DistributedBatches(small.mirrored(1), numbers)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        firsts = list(pool.map(lambda _: next(iter(batches)).numpy()[0], range(16)))
    assert firsts == [0] * 16
    assert tf.data.Dataset.__iter__ is made
