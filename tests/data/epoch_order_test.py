"""Positions and permutations of an epoch."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import tensorflow as tf

from vit_scaling.data.epoch_order import EpochOrder


def blocks(order, epoch):
    slots = tf.range(order.num_blocks, dtype=tf.int64)
    number = tf.constant(epoch, tf.int64)
    return [int(order.block(number, slot)) for slot in slots]


@pytest.mark.parametrize("records", [1, 4, 5, 8, 9, 100, 101])
def test_blocks_are_permuted_and_a_short_one_is_last(records):
    order = EpochOrder(records, 4, 5, seed=3)
    for epoch in range(3):
        result = blocks(order, epoch)
        assert sorted(result) == list(range(order.num_blocks))
        if records % 4:
            assert result[-1] == order.num_blocks - 1


def test_orders_differ_by_seed_epoch_and_host():
    def first(seed=0, epoch=0, host=0):
        return tuple(blocks(EpochOrder(400, 4, 5, seed=seed, host=host), epoch))

    assert len({first(), first(seed=1), first(epoch=1), first(host=1)}) == 4
    assert first() == first()


def test_positions_count_windows_and_epochs():
    order = EpochOrder(109, 4, 6, seed=0)
    place = 0
    for epoch in range(2):
        for record in range(109):
            assert order.locate(place) == (epoch, record // 24, record % 24)
            place += 1
    assert (order.num_blocks, order.num_windows) == (28, 5)


def test_permutations_of_blocks_look_uniform():
    order = EpochOrder(400, 4, 5, seed=0)
    result = np.array([blocks(order, epoch) for epoch in range(40)])
    # A uniform permutation of 100: positions and neighbours are uncorrelated (±0.016).
    ranks = np.broadcast_to(np.arange(100), result.shape)
    assert abs(np.corrcoef(ranks.ravel(), result.ravel())[0, 1]) < 0.07
    assert abs(np.corrcoef(result[:, :-1].ravel(), result[:, 1:].ravel())[0, 1]) < 0.07
    near = np.mean(np.abs(np.diff(result, axis=1)) == 1)
    assert near < 0.04  # 0.02 ± 0.0022.


def sampled_blocks(size, epoch, seed=0, host=0):
    """Return the blocks at the same places (all, if few) of an epoch of `size`."""
    order = EpochOrder(size, 1, 1, seed=seed, host=host)
    few = size <= 4096
    draw = np.random.default_rng(0).integers
    places = np.arange(size) if few else draw(size, size=4096)
    epoch = tf.constant(epoch, tf.int64)
    return order.block(epoch, tf.constant(places, tf.int64)).numpy()


@pytest.mark.parametrize("changed", ["epoch", "seed", "host"])
@pytest.mark.parametrize(
    "size", [16, 64, 100, 255, 256, 1000, 1024, 4096, 65_536, 10**6, 2**24, 3 * 10**9]
)
def test_orders_of_epochs_seeds_and_hosts_do_not_correlate(size, changed):
    draws = 60
    orders = [sampled_blocks(size, **{"epoch": 3, changed: n}) for n in range(draws)]
    correlation = np.corrcoef(np.array(orders, np.float64))
    # Between two independent permutations it is 0 ± 1 / sqrt(n - 1).
    errors = np.sqrt(len(orders[0]) - 1) * correlation[np.triu_indices(draws, 1)]
    neighbours = np.sqrt(len(orders[0]) - 1) * np.diag(correlation, 1)
    assert np.abs(errors).max() < 6
    assert abs(np.mean(neighbours)) < 4.5 / np.sqrt(len(neighbours))
    assert abs(np.mean(errors)) < 4.5 / np.sqrt(len(errors))
    assert 0.85 < np.std(errors) < 1.15  # 1 ± 0.017.


def test_no_two_of_many_epochs_have_the_same_order():
    orders = {tuple(sampled_blocks(3000, epoch)[:50]) for epoch in range(600)}
    assert len(orders) == 600


def test_older_runs_keep_their_order_and_unknown_versions_are_rejected():
    slots = tf.range(100, dtype=tf.int64)
    order = EpochOrder(400, 4, 5, seed=7, version=1)
    epoch = tf.constant(2, tf.int64)
    # What version 1 always computed.
    seed = tf.random.experimental.stateless_fold_in(tf.constant([7, 1], tf.int64), 2)
    expected = tf.random.experimental.index_shuffle(
        slots, seed, tf.constant(99, "int64")
    )
    np.testing.assert_array_equal(order.block(epoch, slots), expected)
    with pytest.raises(ValueError, match=r"`version`.*\(1, 2\); received 3"):
        EpochOrder(400, 4, 5, seed=7, version=3)


def test_seeds_of_records_and_batches_differ():
    order = EpochOrder(100, 4, 5, seed=7)
    numbers = tf.range(100, dtype=tf.int64)
    seeds = {tuple(order.record_seed(n).numpy()) for n in numbers}
    seeds |= {tuple(order.batch_seed(n).numpy()) for n in numbers}
    other = EpochOrder(100, 4, 5, seed=7, host=1)
    seeds |= {tuple(other.record_seed(n).numpy()) for n in numbers}
    assert len(seeds) == 300
