"""Frames of records as TensorFlow writes them."""
# SPDX-License-Identifier: Apache-2.0

import hashlib
import io

import tensorflow as tf

from vit_scaling.data import record_files


def write_records(path, lengths):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for length in lengths:
            writer.write(b"x" * length)
    return path.read_bytes()


def test_offsets_are_where_tensorflow_put_the_records(tmp_path):
    data = write_records(tmp_path / "f", [5, 0, 1000, 7])
    offsets, problem = record_files.scan_offsets(io.BytesIO(data), len(data))
    assert problem is None
    assert offsets.tolist() == [0, 21, 37, 1053, 1076]
    assert offsets[-1] == len(data)


def test_every_truncation_is_found(tmp_path):
    data = write_records(tmp_path / "f", [5, 9])
    for size in range(1, len(data)):
        offsets, problem = record_files.scan_offsets(io.BytesIO(data[:size]), size)
        complete = sum(size >= end for end in (21, 46))
        assert len(offsets) == complete + 1
        assert (problem is None) == (size == 21)


def test_a_flipped_bit_in_a_header_is_found(tmp_path):
    data = bytearray(write_records(tmp_path / "f", [5, 9]))
    data[21] ^= 1
    offsets, problem = record_files.scan_offsets(io.BytesIO(bytes(data)), len(data))
    assert offsets.tolist() == [0, 21]
    assert "the header at byte 21 fails its checksum" in problem


def test_payloads_are_those_that_tensorflow_wrote(tmp_path):
    path = tmp_path / "f"
    contents = [b"first", b"", bytes(range(256)) * 9000, b"last"]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for data in contents:
            writer.write(data)
    size = path.stat().st_size
    offsets, _ = record_files.scan_offsets(io.BytesIO(path.read_bytes()), size)
    starts = offsets[:-1].tolist()
    assert list(record_files.read_payloads(str(path), starts)) == contents
    assert list(record_files.read_payloads(str(path), starts[::-2])) == contents[::-2]


def test_a_damaged_record_is_none_and_the_next_ones_are_read(tmp_path):
    path = tmp_path / "f"
    write_records(path, [5, 9, 7])
    intact = path.read_bytes()
    for place in range(21, 46):  # Length, data and both checksums of the second.
        data = bytearray(intact)
        data[place] ^= 1
        path.write_bytes(bytes(data))
        payloads = list(record_files.read_payloads(str(path), [0, 21, 46]))
        assert payloads == [b"x" * 5, None, b"x" * 7]
    path.write_bytes(intact[:-1])
    assert list(record_files.read_payloads(str(path), [21, 46])) == [b"x" * 9, None]


def test_the_hash_is_that_of_the_bytes_on_the_disk(tmp_path):
    path = tmp_path / "file"
    data = bytes(range(256)) * 10_000  # More than one piece.
    path.write_bytes(data)
    assert record_files.file_sha256(str(path)) == hashlib.sha256(data).hexdigest()
