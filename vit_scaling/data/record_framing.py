"""The frame of a TFRecord file: where each record starts, without reading its bytes."""
# SPDX-License-Identifier: Apache-2.0

import struct
from typing import BinaryIO

import numpy as np

# A record is: length (8 bytes), masked CRC of the length (4), data, masked CRC of the
# data (4). https://www.tensorflow.org/tutorials/load_data/tfrecord
HEADER_BYTES = 12
FOOTER_BYTES = 4
FRAME_BYTES = HEADER_BYTES + FOOTER_BYTES
_HEADER = struct.Struct("<QI")
_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reflected.


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc_table()


def masked_crc(data: bytes) -> int:
    """Return TFRecord's masked CRC-32C of a few bytes (slow: for headers only).

    >>> hex(masked_crc(b"123456789"))
    '0xc78ab0e5'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def scan(file: BinaryIO, size_bytes: int) -> tuple[np.ndarray, str | None]:
    """Walk over the headers of a TFRecord file.

    Args:
        file: Opened for reading at its start; `seek` is used to pass over the data.
        size_bytes: The file's size.

    Returns:
        `(offsets, problem)`: where each whole record starts and, last, where the next
        would start, uint64 of shape (records + 1,); and None, or what is wrong behind
        the last whole record.
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
            problem = _explain(header, start)
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


def _explain(header: bytes, start: int) -> str:
    if start == 0 and header[:2] == b"\x1f\x8b":
        return (
            "the file is gzip-compressed, which cannot be read from a position; "
            "write it again without compression (tools/write_tfrecords.py)"
        )
    return f"the header at byte {start} fails its checksum (not a TFRecord, or damaged)"
