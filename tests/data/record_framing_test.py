"""Record headers as TensorFlow writes them."""
# SPDX-License-Identifier: Apache-2.0

import io

import tensorflow as tf

from vit_scaling.data import record_framing


def written(path, lengths):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for length in lengths:
            writer.write(b"x" * length)
    return path.read_bytes()


def test_offsets_are_where_tensorflow_put_the_records(tmp_path):
    data = written(tmp_path / "f", [5, 0, 1000, 7])
    offsets, problem = record_framing.scan(io.BytesIO(data), len(data))
    assert problem is None
    assert offsets.tolist() == [0, 21, 37, 1053, 1076]
    assert offsets[-1] == len(data)


def test_every_cut_is_noticed(tmp_path):
    data = written(tmp_path / "f", [5, 9])
    for size in range(1, len(data)):
        offsets, problem = record_framing.scan(io.BytesIO(data[:size]), size)
        whole = sum(size >= end for end in (21, 46))
        assert len(offsets) == whole + 1
        assert (problem is None) == (size == 21)


def test_a_flipped_bit_in_a_header_is_noticed(tmp_path):
    data = bytearray(written(tmp_path / "f", [5, 9]))
    data[21] ^= 1
    offsets, problem = record_framing.scan(io.BytesIO(bytes(data)), len(data))
    assert offsets.tolist() == [0, 21]
    assert "the header at byte 21 fails its checksum" in problem
