"""Blocks and windows of serialized records, read at any position."""
# SPDX-License-Identifier: Apache-2.0

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tests.data import sets
from vit_scaling.data import reading
from vit_scaling.data.block_table import make_block_table
from vit_scaling.data.epoch_order import EpochOrder
from vit_scaling.data.reading import (
    BlockReader,
    InMemoryBlockReader,
    RecordStream,
    make_block_reader,
)

COUNTS = [5, 6]


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    source = sets.numbered(tmp_path_factory.mktemp("numbered"), COUNTS)
    return BlockReader(make_block_table(source.index(), block_records=4))


def labels(data):
    return [
        tf.train.Example.FromString(one)
        .features.feature["image/class/label"]
        .int64_list.value[0]
        for one in data
    ]


def test_a_block_crosses_files_and_the_last_one_is_filled_up(blocks):
    data, numbers = blocks.read(tf.constant(1, tf.int64))
    assert numbers.numpy().tolist() == labels(data.numpy()) == [4, 5, 6, 7]
    data, numbers = blocks.read(tf.constant(2, tf.int64))
    assert numbers.numpy().tolist() == [8, 9, 10, -1]
    assert labels(data.numpy()[:3]) == [8, 9, 10]
    data, numbers = blocks.read(tf.constant(-1, tf.int64))
    assert numbers.numpy().tolist() == [-1] * 4


def test_records_are_named_by_their_file(blocks):
    name = blocks.describe(tf.constant(7, tf.int64)).numpy().decode()
    assert name.endswith("train-00001-of-00002.tfrecord, record 2")


def test_the_records_around_a_damaged_one_are_read(tmp_path):
    source = sets.numbered(tmp_path, [8])
    (path,) = (pathlib.Path(shard.path) for shard in source.shards)
    data = bytearray(path.read_bytes())
    data[int(source.index().offsets(0)[1]) + 30] ^= 1
    path.write_bytes(bytes(data))
    reader = BlockReader(make_block_table(source.index(), block_records=4))
    result, numbers = reader.read(tf.constant(0, tf.int64))
    assert numbers.numpy().tolist() == [0, 1, 2, 3]
    texts = result.numpy().tolist()
    assert texts[1] == b""
    assert labels([texts[0], *texts[2:]]) == [0, 2, 3]


def test_a_scattered_subset_is_kept_in_memory_and_read_alike(tmp_path, monkeypatch):
    source = sets.numbered(tmp_path, COUNTS)
    path = pathlib.Path(source.shards[1].path)
    data = bytearray(path.read_bytes())
    data[int(source.index().offsets(1)[1]) + 30] ^= 1  # Record 6 is damaged.
    path.write_bytes(bytes(data))
    index = source.index()
    selected = sets.Chosen(index.starts, np.array([0, 2, 4, 6, 8, 10]))
    table = make_block_table(index, block_records=4, selected=selected)
    in_memory, plain = make_block_reader(table), BlockReader(table)
    assert isinstance(in_memory, InMemoryBlockReader)
    for block in (0, 1, -1):
        one, other = (
            reader.read(tf.constant(block, tf.int64)) for reader in (in_memory, plain)
        )
        np.testing.assert_array_equal(one[0].numpy(), other[0].numpy())
        np.testing.assert_array_equal(one[1].numpy(), other[1].numpy())
    assert in_memory.read(tf.constant(0, tf.int64))[0].numpy()[3] == b""
    complete = make_block_table(source.index(), block_records=4)
    assert type(make_block_reader(complete)) is BlockReader  # Its records lie together.
    monkeypatch.setattr(reading, "_MAX_IN_MEMORY_BYTES", table.size_bytes - 1)
    assert type(make_block_reader(table)) is BlockReader


def chunks(blocks, start, epochs, window_blocks=2):
    order = EpochOrder(sum(COUNTS), 4, window_blocks=window_blocks, seed=3)
    dataset = RecordStream(blocks, order).dataset(
        start=start, epochs=epochs, chunk_records=3
    )
    return list(dataset.as_numpy_iterator())


def test_a_window_of_more_blocks_than_there_are_holds_the_same_records(blocks):
    def numbers(window_blocks):
        read = chunks(blocks, 0, 3, window_blocks)
        return np.concatenate([chunk["number"] for chunk in read])

    assert len(numbers(3)) == 3 * sum(COUNTS)
    np.testing.assert_array_equal(numbers(3), numbers(7))


def test_chunks_from_any_position_are_the_rest_of_the_stream(blocks):
    def stream(start):
        return [
            (int(position), int(number), label)
            for chunk in chunks(blocks, start, 2)
            for position, number, label in zip(
                chunk["position"],
                chunk["number"],
                labels(chunk["data"][chunk["rows"]]),
                strict=True,
            )
        ]

    complete = stream(0)
    assert [position for position, _, _ in complete] == list(range(22))
    assert all(number == label for _, number, label in complete)
    for epoch in (complete[:11], complete[11:]):
        np.testing.assert_array_equal(sorted(n for _, n, _ in epoch), np.arange(11))
    assert stream(9) == complete[9:]
    assert stream(13) == complete[13:]
