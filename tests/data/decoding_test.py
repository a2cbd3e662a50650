"""Chunks of records to images and labels; bad records cost only themselves."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import tensorflow as tf

from tests.data import sets
from vit_scaling.data.decoding import pack_labels, unpack_labels
from vit_scaling.data.image_data import Host
from vit_scaling.data.pipeline import TrainData
from vit_scaling.data.reading import without_autograph
from vit_scaling.image_preprocessing import Resize


def test_labels_travel_as_text_and_come_back():
    rows = [[29_592, 0], [], [7]]
    texts = tf.stack([pack_labels(tf.constant(row, tf.int64)) for row in rows])
    assert texts.numpy().tolist() == [b"29592 0", b"", b"7"]
    assert unpack_labels(texts).to_list() == rows


def decode_chunk(path, records, policy):
    """One chunk of all records of a set in their order, decoded."""
    source = sets.shards(path, [records])
    data = TrainData(
        source, image_size=4, classes=3, preprocess=Resize(), on_bad_record=policy
    )
    stream, decoder = data.make_stream_and_decoder(Host(), 0)
    numbers = tf.range(len(records), dtype=tf.int64)
    chunk = {
        "data": tf.constant(records),
        "rows": numbers,
        "number": numbers,
        "position": numbers,
    }
    assert stream.blocks.describe(numbers[1]).numpy().endswith(b".tfrecord, record 1")
    return (
        tf.data.Dataset.from_tensors(chunk)
        .map(without_autograph(decoder.decode))
        .get_single_element()
    )


def test_bad_records_leave_the_others_in_their_places(tmp_path):
    shades = [np.full((4, 4, 3), shade, np.uint8) for shade in (10, 90, 200)]
    good = [sets.encoded(shade, "PNG") for shade in shades]
    records = [
        sets.example(good[0], [0]),
        sets.example(b"junk", [1]),
        sets.example(good[1], [1, 2]),
        sets.example(good[2], [3]),  # No such class.
        sets.example(good[2], []),
    ]
    chunk = decode_chunk(tmp_path, records, "skip")
    assert chunk["good"].numpy().tolist() == [True, False, True, False, True]
    for row, shade in ((0, 10), (2, 90), (4, 200)):
        assert (chunk["images"][row].numpy() == shade).all()
    assert chunk["labels"].numpy()[[0, 2, 4]].tolist() == [b"0", b"1 2", b""]


def test_the_first_bad_record_stops_with_advice(tmp_path):
    records = [sets.example(b"junk", [0]), sets.example(b"", [0])]
    message = r"record 0: its image cannot be decoded"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message) as raised:
        decode_chunk(tmp_path, records, "stop")
    assert "vit-scaling data verify lists all" in str(raised.value)
    assert "record 1" not in str(raised.value)
