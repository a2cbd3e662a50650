"""Write one shard atomically, together with its sidecar files."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from vit_scaling.data import sidecar_files, subsets
from vit_scaling.data.examples import Features
from vit_scaling.data.record_files import FRAME_BYTES, file_sha256
from vit_scaling.io_files import atomic_file


class ShardFile:
    """A shard that is being written; `open_shard` makes it.

    Args:
        path: Final path of the shard.
        writer: Writes the temporary file.
    """

    def __init__(self, path: str, writer: tf.io.TFRecordWriter) -> None:
        self._path, self._writer = path, writer
        self.offsets = [0]
        self.key_hashes: list[int] = []
        self.sha256 = ""

    def write(self, record: bytes, key: bytes | None) -> None:
        """Append a record; None means that it has no key."""
        self._writer.write(record)
        self.offsets.append(self.offsets[-1] + FRAME_BYTES + len(record))
        if key is not None:
            self.key_hashes.append(subsets.hash_key(key))

    def manifest_row(self) -> dict[str, Any]:
        """Return the shard's row of the manifest, once it is complete."""
        return {
            "file": os.path.basename(self._path),
            "records": len(self.offsets) - 1,
            "bytes": self.offsets[-1],
            "sha256": self.sha256,
        }


@contextlib.contextmanager
def open_shard(path: str, features: Features) -> Iterator[ShardFile]:
    """Context manager: a `ShardFile` that becomes `path` if the block succeeds.

    Hashes of the keys are stored if every record has a key that is not the image.
    """
    with atomic_file(path) as temporary:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            shard = ShardFile(path, writer)
            yield shard
        shard.sha256 = file_sha256(str(temporary))
        offsets = np.array(shard.offsets, np.uint64)
        sidecar_files.write_sidecar(path, sidecar_files.OFFSETS, offsets)
        has_keys = len(shard.key_hashes) == len(offsets) - 1
        if has_keys and features.key != features.image:
            kind = sidecar_files.key_hashes_kind(features.key, shard.offsets[-1])
            hashes = np.array(shard.key_hashes, np.uint64)
            sidecar_files.write_sidecar(path, kind, hashes)
