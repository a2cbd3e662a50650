"""Arrays stored next to a shard: the offsets of its records, hashes of their keys."""
# SPDX-License-Identifier: Apache-2.0

import hashlib
import os
import re
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from vit_scaling.io_files import absolute_path, atomic_file, user_cache_folder

INDEX_FOLDER = "index"  # In the shards' folder: index/<shard>.offsets.npy
OFFSETS = "offsets"
_BUFFER_BYTES = 512 * 1024  # TensorFlow's.
# What `np.save` writes before the numbers of such an array. `np.load` would parse it as
# a Python expression, which fails now and then in threads (Python 3.11's `ast.parse`).
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(<[iu]8)', 'fortran_order': False, "
    rb"'shape': \((\d+),\), \} *\n",
    re.DOTALL,
)


def key_hashes_kind(key: str, size_bytes: int) -> str:
    """Return the kind of the sidecar with a shard's hashes of keys.

    It depends on the key's feature and on the shard's size, so hashes of another
    feature, or of an earlier file of the same name, are never read.
    """
    return f"keys-{hashlib.sha256(key.encode()).hexdigest()[:8]}-{size_bytes}"


def sidecar_paths(shard: str, kind: str, suffix: str = ".npy") -> list[str]:
    """Return the places of a sidecar: the shard's folder, then the user's cache."""
    folder, name = os.path.split(shard)
    unique = hashlib.sha256(absolute_path(shard).encode()).hexdigest()[:16]
    return [
        os.path.join(folder, INDEX_FOLDER, f"{name}.{kind}{suffix}"),
        str(user_cache_folder() / INDEX_FOLDER / f"{unique}.{kind}{suffix}"),
    ]


def read_sidecars(shard: str, kind: str) -> Iterator[np.ndarray]:
    """Yield the array stored at each place of a sidecar; the caller checks it."""
    for path in sidecar_paths(shard, kind):
        try:
            array = load_array(path)
        except (OSError, tf.errors.OpError):  # It need not exist.
            continue
        if array is not None:  # A damaged sidecar is computed again.
            yield array


def load_array(path: str) -> np.ndarray | None:
    """Return the array of 64-bit integers in a file; None if the file is damaged.

    Raises:
        tf.errors.NotFoundError: The file does not exist.
    """
    data = bytearray()
    with tf.io.gfile.GFile(path, "rb") as file:
        # Without a size, `read` would ask for the file's. Short of a buffer is its end.
        while len(data) % _BUFFER_BYTES == 0 and (piece := file.read(_BUFFER_BYTES)):
            data += piece
    header = _NPY_HEADER.match(data)
    if not header or len(data) != header.end() + 8 * int(header[2]):
        return None
    return np.frombuffer(data, header[1].decode(), offset=header.end())


def store_sidecar(shard: str, kind: str, array: np.ndarray) -> None:
    """Store an array in the shard's folder.

    Raises:
        OSError: The folder is not writable, or the disk is full.
    """
    _save(sidecar_paths(shard, kind)[0], array)


def write_sidecar(shard: str, kind: str, array: np.ndarray) -> str | None:
    """Store an array at the first writable place.

    Returns:
        The path written, or None if no place is writable.
    """
    for path in sidecar_paths(shard, kind):
        try:
            _save(path, array)
        except (OSError, tf.errors.OpError):
            continue
        return path
    return None


def _save(path: str, array: np.ndarray) -> None:
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)
