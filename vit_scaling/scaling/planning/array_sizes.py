"""Bytes of arrays in the layout of a device: padded to tiles on a TPU."""
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Sequence

LANES, _SUBLANES = 128, 8


def array_bytes(dimensions: Sequence[int], itemsize: int, *, tpu: bool) -> int:
    """Return the bytes of an array, on TPU in the layout with the least padding.

    A TPU array is stored in tiles of 8 × 128: of two chosen axes one is padded to a
    multiple of 8, the other to a multiple of 128. So a width of 192 is put along the
    rows, and 257 × 257 tokens take 264 × 384.

    Args:
        dimensions: The array's shape.
        itemsize: Bytes of an element.
        tpu: Whether to pad.
    """
    sizes = [size for size in dimensions if size > 1]
    count = math.prod(sizes)
    if not tpu or not sizes:
        return count * itemsize
    if len(sizes) == 1:  # A vector's tile is the next power of two, 128 to 1024.
        tile = min(max(1 << (count - 1).bit_length(), LANES), LANES * _SUBLANES)
        return round_up(count, tile) * itemsize
    padded = [
        round_up(lane, LANES) / lane * round_up(row, _SUBLANES) / row
        for i, lane in enumerate(sizes)
        for j, row in enumerate(sizes)
        if i != j
    ]
    return round(count * min(padded)) * itemsize


def round_up(size: int, multiple: int) -> int:
    """Return the smallest multiple that is not below `size`."""
    return -(-size // multiple) * multiple
