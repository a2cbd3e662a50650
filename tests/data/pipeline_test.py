"""Batches: the same on every start, for every replica count, from any step."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.data import sets
from tests.oracles import epoch_order
from vit_scaling.batch_distribution import DistributedBatches
from vit_scaling.data.image_data import Host
from vit_scaling.data.pipeline import EvalData, TrainData
from vit_scaling.image_preprocessing import Resize

COUNTS = [37, 0, 50, 3, 19]  # 109 records; one shard is empty.


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    return sets.numbered(tmp_path_factory.mktemp("numbered"), COUNTS)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    contents = [
        [
            sets.example(sets.jpeg(sets.tile(20 * s + i, 40)), [i % 3], f"{s}/{i}")
            for i in range(20)
        ]
        for s in range(2)
    ]
    return sets.shards(tmp_path_factory.mktemp("photographs"), contents)


def train_numbers(source, **changes):
    options = {
        "image_size": 1,
        "classes": 109,
        "preprocess": Resize(),
        "block_records": 4,
        "shuffle_window": 24,
    }
    return TrainData(source, **{**options, **changes})


def labels(data, *, steps, batch_size=8, **options):
    batches = data.dataset(batch_size=batch_size, **{"seed": 1, **options})
    return np.concatenate(
        [batch["labels"].numpy().argmax(1) for batch in batches.take(steps)]
    )


def images(data, *, steps, batch_size=8, **options):
    batches = data.dataset(batch_size=batch_size, **{"seed": 1, **options})
    return np.concatenate([b["images"].numpy() for b in batches.take(steps)])


def context(hosts, host, replicas):
    return tf.distribute.InputContext(hosts, host, replicas)


def test_every_epoch_has_every_record_once_in_another_order(numbered):
    seen = labels(train_numbers(numbered), steps=3 * 109, batch_size=1)
    epochs = seen.reshape(3, 109)
    for epoch in epochs:
        epoch_order.check_epoch(epoch, 109, block_records=4, window_records=24)
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])


def test_another_seed_gives_another_order(numbered):
    data = train_numbers(numbered)
    first, second = (labels(data, steps=13, seed=seed) for seed in (1, 2))
    assert not np.array_equal(first, second)


def test_a_resumed_run_continues_with_exactly_the_next_batches(numbered):
    data = train_numbers(numbered)
    complete = labels(data, steps=60).reshape(60, 8)
    for step in (2, 41):  # Inside a window of the first and of a later epoch.
        rest = labels(data, steps=60 - step, start_step=step).reshape(-1, 8)
        np.testing.assert_array_equal(rest, complete[step:])


def test_a_late_batch_is_read_without_the_earlier_ones(numbered):
    epochs = 1_000_000 // 109 + 1
    seen = labels(
        train_numbers(numbered), steps=109, batch_size=1, start_step=109 * epochs
    )
    epoch_order.check_epoch(seen, 109, block_records=4, window_records=24)


def test_augmented_batches_are_bit_equal_on_every_start_and_replica_count(photographs):
    data = TrainData(photographs, image_size=16, classes=3, shuffle_window=32)
    one = images(data, steps=8)
    for replicas in (2, 4):
        shared = images(data, steps=8 * replicas, input_context=context(1, 0, replicas))
        np.testing.assert_array_equal(shared, one)
    resumed = images(data, steps=3, start_step=5)
    np.testing.assert_array_equal(resumed, one[40:])
    assert len(np.unique(one.reshape(64, -1), axis=0)) == 64  # No two crops alike.


def test_replicas_get_equal_shares(photographs):
    data = TrainData(photographs, image_size=16, classes=3)
    batches = data.dataset(batch_size=12, seed=0, input_context=context(1, 0, 4))
    assert next(iter(batches))["images"].shape == (3, 16, 16, 3)
    with pytest.raises(ValueError, match="multiple of the number of replicas"):
        data.dataset(batch_size=10, seed=0, input_context=context(1, 0, 4))


def test_hosts_divide_an_epoch_without_loss_or_duplicates(numbered):
    hosts, seen = 3, []
    for host in range(hosts):
        mine = 109 * (host + 1) // hosts - 109 * host // hosts
        seen.append(
            labels(
                train_numbers(numbered),
                steps=mine,
                batch_size=hosts,
                input_context=context(hosts, host, hosts),
            )
        )
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(109))


def test_training_data_has_infinite_cardinality(numbered):
    """Workers that do not know it lose the batches' static shapes."""
    data = train_numbers(numbered).dataset(batch_size=8, seed=1, start_step=3)
    assert data.cardinality() == tf.data.INFINITE_CARDINALITY


def test_no_thread_tunes_a_pipeline_without_numbers_to_tune(numbered):
    # Deleting an iterator over several devices would wait for its sleep to end.
    training = train_numbers(numbered).dataset(batch_size=8, seed=1)
    evaluation = EvalData(numbered, image_size=8, classes=40).dataset(batch_size=8)
    for batches in (training, evaluation):
        assert batches.options().autotune.enabled is False


def test_a_window_has_no_more_blocks_than_the_set(tmp_path):
    """Otherwise each epoch draws and reads many blocks that do not exist."""
    source = sets.numbered(tmp_path, [43])
    data = TrainData(source, image_size=8, classes=43, block_records=16)
    stream, _ = data.make_stream_and_decoder(Host(), 0)
    assert data.shuffle_window > 48 and stream.order.window_blocks == 3


def test_more_hosts_than_images_raises(tmp_path):
    data = train_numbers(sets.numbered(tmp_path, [3]))
    with pytest.raises(ValueError, match="3 images for 5 hosts"):
        data.dataset(batch_size=5, seed=0, input_context=context(5, 0, 5))


def test_class_sorted_input_mixes(tmp_path):
    white = sets.encoded(np.zeros((1, 1, 3), np.uint8), "PNG")
    records = [sets.example(white, [n // 100]) for n in range(1000)]  # 10 classes.
    source = sets.shards(tmp_path, [records[i : i + 250] for i in range(0, 1000, 250)])
    data = train_numbers(source, classes=10, block_records=4, shuffle_window=256)
    seen = labels(data, steps=1000, batch_size=1)
    assert epoch_order.class_runs(np.arange(1000) // 100) == 100
    assert epoch_order.class_runs(seen) < 1.25  # 1.11 for a perfect shuffle.
    first = np.bincount(seen[:250], minlength=10)
    # 63 blocks of ten classes: sampling noise of sqrt(4 * 25) around 25.
    assert np.all(np.abs(first - 25) < 35)


def test_labels_are_multi_hot_and_may_be_none(tmp_path):
    white = sets.encoded(np.zeros((1, 1, 3), np.uint8), "PNG")
    records = [sets.example(white, given) for given in ([2, 0], [], [1, 1], [3])]
    source = sets.shards(tmp_path, [records])
    data = EvalData(source, image_size=1, classes=4, preprocess=Resize())
    (batch,) = data.dataset(batch_size=4)
    expected = [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(batch["labels"], expected)


def test_as_many_classes_as_jft_has_make_no_row_before_the_batch(tmp_path):
    white = sets.encoded(np.zeros((1, 1, 3), np.uint8), "PNG")
    given = [[29_592, 0, 17], [], [5], [29_591]]
    source = sets.shards(tmp_path, [[sets.example(white, row) for row in given]])
    data = train_numbers(source, classes=29_593)
    stream, decoder = data.make_stream_and_decoder(Host(), 0)
    chunks = stream.dataset(start=0, epochs=1, chunk_records=16)
    (chunk,) = chunks.map(decoder.decode)
    # What waits in buffers: a pixel, a flag and a few letters an image.
    assert sum(len(text) for text in chunk["labels"].numpy()) < 30
    assert chunk["labels"].shape == chunk["good"].shape == (4,)
    (batch,) = data.dataset(batch_size=4, seed=0).take(1)
    assert batch["labels"].shape == (4, 29_593)
    result = [set(np.flatnonzero(row).tolist()) for row in batch["labels"].numpy()]
    assert sorted(map(sorted, result)) == sorted(map(sorted, given))


@pytest.mark.parametrize(("hosts", "replicas"), [(1, 2), (3, 3)])
def test_evaluation_sees_every_image_once_in_equal_batches(numbered, hosts, replicas):
    data = EvalData(numbered, image_size=1, classes=109, preprocess=Resize())
    seen, lengths = [], set()
    for host in range(hosts):
        batches = list(
            data.dataset(batch_size=18, input_context=context(hosts, host, replicas))
        )
        lengths.add(len(batches))
        for batch in batches:
            assert batch["images"].shape == (18 // replicas, 1, 1, 3)
            real = batch["mask"].numpy() == 1
            seen.extend(batch["labels"].numpy().argmax(1)[real])
            assert not batch["labels"].numpy()[~real].any()
    assert sorted(seen) == list(range(109))
    assert len(lengths) == 1


def test_subsets_nest_and_are_read_completely(numbered):
    def members(**subset):
        data = train_numbers(numbered, **subset)
        steps = data.num_examples
        return set(labels(data, steps=steps, batch_size=1).tolist()), steps

    small, count = members(num_images=10)
    assert len(small) == count == 10
    larger, count = members(num_images=40)
    assert len(larger) == count == 40
    half, count = members(fraction=0.5)
    assert len(half) == count
    assert small < larger
    assert small < half
    assert 35 < count < 75  # 54.5 ± 4 standard deviations of 5.2.


def test_element_spec_needs_no_file_and_is_correct(photographs):
    nowhere = dataclasses.replace(photographs, pattern="/nowhere/*")
    spec = TrainData(nowhere, image_size=16, classes=3).element_spec(4)
    data = TrainData(photographs, image_size=16, classes=3)
    assert data.dataset(batch_size=4, seed=0).element_spec == spec
    evaluation = EvalData(photographs, image_size=16, classes=3)
    result = evaluation.dataset(batch_size=4).element_spec
    assert result == evaluation.element_spec(4)


def test_under_a_strategy_the_global_batches_are_those_of_one_device(photographs):
    data = TrainData(photographs, image_size=16, classes=3)
    one = images(data, steps=2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    distributed = DistributedBatches(
        strategy,
        lambda given: data.dataset(batch_size=8, seed=1, input_context=given),
    )
    iterator = iter(distributed)
    got = [
        np.concatenate(strategy.experimental_local_results(next(iterator)["images"]))
        for _ in range(2)
    ]
    np.testing.assert_array_equal(np.concatenate(got), one)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 0}, "`image_size` must be an integer of at least 1"),
        ({"classes": 0}, "`classes` must be an integer of at least 1"),
        ({"on_bad_record": "ignore"}, "`on_bad_record` must be one of 'stop', 'skip'"),
    ],
)
def test_settings_are_checked_at_once(numbered, change, message):
    with pytest.raises(ValueError, match=message):
        train_numbers(numbered, **change)


def test_fewer_classes_than_names_raise(tmp_path):
    source = sets.numbered(tmp_path, [3])
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(ValueError, match="classes=2, and 3 names"):
        _ = train_numbers(source, classes=2).num_examples
