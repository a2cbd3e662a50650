"""Objects with large arrays in files, which the processes of a machine share."""
# SPDX-License-Identifier: Apache-2.0

import mmap
import pickle
from typing import Any

from vit_scaling.io_files import atomic_file, is_remote, open_file

_ALIGNMENT = 64


def store(path: str, value: Any) -> None:
    """Store an object in the file `path`, and its arrays in `path`.arrays.

    Args:
        path: On a file system that all workers see.
        value: An object that can be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    places, end = [], 0
    with atomic_file(f"{path}.arrays") as temporary, temporary.open("wb") as file:
        for buffer in buffers:
            raw = buffer.raw()
            places.append((end, raw.nbytes))
            file.write(raw)
            padding = -raw.nbytes % _ALIGNMENT
            file.write(bytes(padding))
            end += raw.nbytes + padding
    with atomic_file(path) as temporary:
        temporary.write_bytes(pickle.dumps((content, places)))


def load(path: str) -> Any:
    """Return a stored object. Its arrays are read-only pages of a mapped local file."""
    with open_file(path) as file:
        content, places = pickle.load(file)
    pages = memoryview(b"")
    if any(size for _, size in places):  # An empty file cannot be mapped.
        with open_file(f"{path}.arrays") as file:
            if is_remote(path):
                pages = memoryview(file.read())
            else:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                pages = memoryview(mapped)
    parts = [pages[start : start + size] for start, size in places]
    return pickle.loads(content, buffers=parts)
