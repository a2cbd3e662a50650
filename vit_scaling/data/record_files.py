"""Read the frames of TFRecord files: offsets, payloads and checksums."""
# SPDX-License-Identifier: Apache-2.0

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import google_crc32c
import numpy as np
import tensorflow as tf

from vit_scaling.io_files import open_file

# A record is: length (8 bytes), masked CRC of the length (4), data, masked CRC of the
# data (4). https://www.tensorflow.org/tutorials/load_data/tfrecord
HEADER_BYTES = 12
FOOTER_BYTES = 4
FRAME_BYTES = HEADER_BYTES + FOOTER_BYTES
CHECKSUM_FAILS = "its bytes fail their checksum"
_HEADER = struct.Struct("<QI")
_BUFFER_BYTES = 2**20


def masked_crc(data: bytes) -> int:
    """Return TFRecord's masked CRC-32C of some bytes.

    >>> hex(masked_crc(b"123456789"))
    '0xc78ab0e5'
    """
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def file_size(path: str) -> int:
    """Return a file's size in bytes.

    Raises:
        FileNotFoundError: The file does not exist.
    """
    try:
        return int(tf.io.gfile.stat(path).length)
    except tf.errors.NotFoundError:
        raise FileNotFoundError(f"The shard {path} does not exist.") from None


def file_sha256(path: str) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    digest = hashlib.sha256()
    with open_file(path) as file:
        while piece := file.read(_BUFFER_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def scan_offsets(file: BinaryIO, size_bytes: int) -> tuple[np.ndarray, str | None]:
    """Find where each record of a TFRecord file starts, from the headers alone.

    Args:
        file: Opened for reading; `seek` is used to skip the data.
        size_bytes: The file's size.

    Returns:
        `(offsets, problem)`: the start of every complete record followed by the end of
        the last one, uint64 of shape (records + 1,); and a description of the damage
        after the last complete record, or None.
    """
    offsets = [0]
    problem = None
    while offsets[-1] < size_bytes:
        start = offsets[-1]
        file.seek(start)
        header = file.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            problem = f"the file ends inside the header at byte {start} (truncated?)"
            break
        length, crc = _HEADER.unpack(header)
        if masked_crc(header[:8]) != crc:
            problem = _describe_bad_header(header, start)
            break
        end = start + FRAME_BYTES + length
        if end > size_bytes:
            problem = (
                f"its data should end at byte {end}, but the file has {size_bytes} "
                "bytes (truncated)"
            )
            break
        offsets.append(end)
    return np.array(offsets, np.uint64), problem


def _describe_bad_header(header: bytes, start: int) -> str:
    if start == 0 and header[:2] == b"\x1f\x8b":
        return (
            "the file is gzip-compressed, which cannot be read from a position; "
            "write it again without compression (vit-scaling data write)"
        )
    return f"the header at byte {start} fails its checksum (not a TFRecord, or damaged)"


def read_payloads(path: str, offsets: Iterable[int]) -> Iterator[bytes | None]:
    """Yield the data of the records that start at `offsets`, in that order.

    A record is None if the file ends inside it or a checksum of it fails.
    """
    with open_file(path) as file:
        for offset in offsets:
            file.seek(offset)
            yield read_payload(file)


def read_payload(file: BinaryIO) -> bytes | None:
    """Return the data of the record at the file's position; None if it is damaged."""
    header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return None
    length, crc = _HEADER.unpack(header)
    if masked_crc(header[:8]) != crc:
        return None
    data, footer = file.read(length), file.read(FOOTER_BYTES)
    is_intact = footer == masked_crc(data).to_bytes(FOOTER_BYTES, "little")
    return data if is_intact and len(data) == length else None
