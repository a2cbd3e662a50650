"""Files with a table of blocks, by which it reaches the workers of tf.data service.

A graph that is sent to a worker holds its constants, and may have at most 2 GiB: the
offsets of 225 million records. So the graph holds the path, and the worker reads the
file, whose checksums are TFRecord's.
"""
# SPDX-License-Identifier: Apache-2.0

import hashlib

import tensorflow as tf

from vit_scaling.data import sidecar_files
from vit_scaling.data.block_table import BlockTable
from vit_scaling.data.record_files import FRAME_BYTES, file_size
from vit_scaling.io_files import atomic_file

Arrays = dict[str, tf.Tensor]
_INTEGERS = (
    "offsets",
    "run_file",
    "run_first",
    "run_number",
    "run_bytes",
    "block_run",
)


def make_tensors(table: BlockTable) -> Arrays:
    """Return a table's arrays as tensors in the host's memory."""
    with tf.device("/cpu:0"):
        integers = {n: tf.constant(getattr(table, n), tf.int64) for n in _INTEGERS}
        return {"paths": tf.constant(list(table.paths), tf.string), **integers}


def store_table(table: BlockTable) -> str:
    """Store a table next to its first shard, or in the user's cache; return the path.

    The name is a hash of the content, so a run that starts again finds its file.

    Raises:
        OSError: Neither folder is writable.
    """
    paths = tf.io.serialize_tensor(tf.constant(list(table.paths), tf.string)).numpy()
    arrays = [getattr(table, name).astype("<i8", copy=False) for name in _INTEGERS]
    digest = hashlib.blake2b(paths, digest_size=8)
    for array in arrays:
        digest.update(memoryview(array).cast("B"))
    kind = f"blocks-{digest.hexdigest()}"
    size = len(paths) + sum(a.nbytes for a in arrays) + FRAME_BYTES * (1 + len(arrays))
    places = sidecar_files.sidecar_paths(
        table.paths[0].decode(), kind, suffix=".tfrecord"
    )
    errors = []
    for path in places:
        try:
            if file_size(path) == size:
                return path
        except (FileNotFoundError, tf.errors.OpError):
            pass
        try:
            with (
                atomic_file(path) as temporary,
                tf.io.TFRecordWriter(str(temporary)) as writer,
            ):
                writer.write(paths)
                for array in arrays:
                    writer.write(array.tobytes())
        except (OSError, tf.errors.OpError) as error:
            errors.append(str(error))
            continue
        return path
    raise OSError(
        "The workers of `service` read the index of the images from a file, which "
        f"could not be written: {'; '.join(errors)}. Make one of the folders writable, "
        "or name another cache by XDG_CACHE_HOME; the workers must see it too."
    )


def read_table(path: str) -> tf.data.Dataset:
    """Return a dataset with one element: the arrays of a stored table."""
    count = 1 + len(_INTEGERS)

    def parse(parts: tf.Tensor) -> Arrays:
        paths = tf.ensure_shape(tf.io.parse_tensor(parts[0], tf.string), [None])
        integers = {
            name: tf.io.decode_raw(parts[number], tf.int64)
            for number, name in enumerate(_INTEGERS, 1)
        }
        return {"paths": paths, **integers}

    records = tf.data.TFRecordDataset(path).batch(count, drop_remainder=True)
    return records.map(tf.autograph.experimental.do_not_convert(parse))
