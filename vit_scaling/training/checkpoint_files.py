"""The files of one checkpoint: write them, and verify them when they are read.

A checkpoint is a folder `step_000001000` that holds TensorFlow's tensor bundle, whose
keys are `model/PATH`, `optimizer/PATH`, `averages/PATH` and `run/NAME`, and a
`manifest.json` with shapes, sizes of files and the run's plain state. The bundle
stores a checksum of every tensor, computed while it is written, and TensorFlow compares
it whenever it reads the tensor. The manifest is written last and removed first: a
folder without it is not a checkpoint. A local folder gets its final name only when it
is complete. Object stores such as Cloud Storage cannot rename folders, so the files are
written under the final name at once.

Versions of the format: 1 has one file of values; 2 has one per `SHARD_BYTES`.
"""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import errno
import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from etils import epath

from vit_scaling import io_files

FORMAT = 2
SHARD_BYTES = 2**30  # Of a file; a larger variable has a file for itself.
MANIFEST = "manifest.json"
BUNDLE = "variables"
_WRITERS = 8  # Shards that are written at the same time.
PARTIAL_PREFIX = ".writing_"  # Of the name of a local checkpoint being written.
_STEP_FOLDER = re.compile(r"step_(\d+)")


class CorruptCheckpointError(ValueError):
    """A checkpoint has files that are missing, truncated or changed."""


def checkpoint_folder(directory: epath.PathLike, step: int) -> epath.Path:
    """Return the folder of the checkpoint of a step."""
    return epath.Path(directory) / f"step_{step:09d}"


def saved_steps(directory: epath.PathLike) -> list[int]:
    """Return the steps of the checkpoints that have a manifest, ascending."""
    manifests = epath.Path(directory).glob(f"step_*/{MANIFEST}")
    return _steps_in(path.parent.name for path in manifests)


def step_folders(directory: epath.PathLike) -> list[int]:
    """Return the steps of all checkpoint folders, complete or not, ascending."""
    return _steps_in(path.name for path in epath.Path(directory).glob("step_*"))


@contextlib.contextmanager
def new_checkpoint(folder: epath.Path) -> Iterator[epath.Path]:
    """Context manager: an empty folder that becomes the checkpoint `folder`.

    A local folder has a temporary name until the block succeeds. Remains of a write
    that was interrupted are removed, also those of the block itself.
    """
    remote = io_files.is_remote(folder)
    working = folder if remote else folder.with_name(PARTIAL_PREFIX + folder.name)
    for remains in {working, folder}:
        remove_checkpoint(remains)
    try:
        working.mkdir(parents=True)
        yield working
        if not remote:
            working.rename(folder)
        io_files.flush_folder(folder.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            remove_checkpoint(working)
        raise


def remove_checkpoint(folder: epath.Path) -> None:
    """Remove a folder, its manifest first, so that it stops being a checkpoint.

    A file in its place is removed as well.
    """
    if folder.exists() and not folder.is_dir():
        folder.unlink()
    elif folder.exists():
        (folder / MANIFEST).unlink(missing_ok=True)
        folder.rmtree()


def _steps_in(names: Iterable[str]) -> list[int]:
    matches = (_STEP_FOLDER.fullmatch(name) for name in names)
    return sorted(int(match[1]) for match in matches if match)


def write_checkpoint(
    folder: epath.Path,
    step: int,
    values: Mapping[str, np.ndarray | tf.Tensor],
    state: Mapping[str, Any],
) -> None:
    """Write values, then the manifest, into an empty folder, and flush them to disk.

    Tensors in the host's memory are written without a copy.
    """
    values = {key: values[key] for key in sorted(values)}

    def write_shard(number: int) -> str:
        prefix = str(folder / f"shard_{number}" / BUNDLE)
        keys = shards[number]
        with tf.device("CPU:0"):
            tf.raw_ops.SaveV2(
                prefix=prefix,
                tensor_names=keys,
                shape_and_slices=[""] * len(keys),
                tensors=[tf.convert_to_tensor(values[key]) for key in keys],
            )
        return prefix

    shards = _shards(values)
    prefixes = io_files.map_in_threads(write_shard, range(len(shards)), _WRITERS)
    with tf.device("CPU:0"):
        tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=prefixes,
            destination_prefix=str(folder / BUNDLE),
            delete_old_dirs=True,
        )
    files = sorted(folder.glob(f"{BUNDLE}.*"))
    io_files.map_in_threads(io_files.flush_file, files)
    manifest = {
        "format": FORMAT,
        "step": step,
        "state": dict(state),
        "files": {path.name: {"bytes": path.stat().length} for path in files},
        "variables": {
            key: {"shape": list(value.shape), "dtype": tf.as_dtype(value.dtype).name}
            for key, value in values.items()
        },
    }
    io_files.write_json(folder / MANIFEST, {**manifest, "crc32": _json_crc32(manifest)})


def _shards(values: Mapping[str, np.ndarray | tf.Tensor]) -> list[list[str]]:
    """Divide keys, in order, among files of at most `SHARD_BYTES` each."""
    shards: list[list[str]] = [[]]
    size = 0
    for key, value in values.items():
        added = math.prod(value.shape) * tf.as_dtype(value.dtype).size
        if shards[-1] and size + added > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(key)
        size += added
    return shards


def read_checkpoint(
    folder: epath.PathLike, *, prefixes: Iterable[str] = ("",)
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Verify a checkpoint and return its arrays, by key, and its manifest.

    The arrays are read-only: they are the tensors' memory, not a copy of it.

    Args:
        folder: A folder `step_…`.
        prefixes: Only keys that start with one of these are read and verified.

    Raises:
        FileNotFoundError: The folder does not exist.
        CorruptCheckpointError: A file is missing, truncated or changed.
        ValueError: Its format is newer than this code.
    """
    folder = epath.Path(folder)
    if folder.exists() and not folder.is_dir():
        raise CorruptCheckpointError(
            f"The checkpoint `{folder}` is damaged: it is a file, not a folder."
        )
    if not folder.is_dir():
        steps = saved_steps(folder.parent)
        raise FileNotFoundError(
            f"The checkpoint `{folder}` does not exist; steps saved there: "
            f"{steps or 'none'}."
        )
    manifest = _verify_manifest(folder)
    keys = [key for key in manifest["variables"] if key.startswith(tuple(prefixes))]
    if not keys:
        return {}, manifest
    dtypes = [tf.as_dtype(manifest["variables"][key]["dtype"]) for key in keys]
    try:
        with tf.device("CPU:0"):
            tensors = tf.raw_ops.RestoreV2(
                prefix=str(folder / BUNDLE),
                tensor_names=keys,
                shape_and_slices=[""] * len(keys),
                dtypes=dtypes,
            )
    except tf.errors.OpError as error:
        raise CorruptCheckpointError(
            f"The checkpoint `{folder}` is damaged: {error.message}"
        ) from error
    return dict(zip(keys, map(np.asarray, tensors), strict=True)), manifest


def read_newest(
    directory: epath.Path, steps: Sequence[int], *, prefixes: Sequence[str] = ("",)
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the last of `steps` whose checkpoint is complete; log the damaged ones.

    Raises:
        CorruptCheckpointError: All of them are damaged.
    """
    damaged = []
    for step in reversed(steps):
        try:
            return read_checkpoint(
                checkpoint_folder(directory, step), prefixes=prefixes
            )
        except CorruptCheckpointError as error:
            logging.error("%s The checkpoint before it is tried.", error)
            damaged.append(str(error))
    raise CorruptCheckpointError(
        f"No complete checkpoint is left in `{directory}`: {' '.join(damaged)} "
        "Put one of its folders back from a copy, or take a new --model_dir."
    )


def write_failure_advice(error: Exception) -> str:
    """Return the advice of an error message about a file that cannot be written."""
    # TensorFlow's own errors carry the system's text, but not its number.
    texts = map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
    is_full = any(text in str(error) for text in texts)
    first = "Make room (or raise the quota)" if is_full else "Fix that"
    return (
        f"{first} and start the same command again; it continues from the last "
        "checkpoint."
    )


def _verify_manifest(folder: epath.Path) -> dict[str, Any]:
    damage = f"The checkpoint `{folder}` is damaged:"
    try:
        manifest = dict(json.loads((folder / MANIFEST).read_text()))
    except (FileNotFoundError, IsADirectoryError, TypeError, ValueError) as error:
        raise CorruptCheckpointError(
            f"{damage} {MANIFEST} is missing or not JSON."
        ) from error
    if manifest.pop("crc32", None) != _json_crc32(manifest):
        raise CorruptCheckpointError(
            f"{damage} {MANIFEST} does not match its own checksum."
        )
    if manifest["format"] > FORMAT:  # Not damage: a flipped bit fails the checksum.
        raise ValueError(
            f"The checkpoint `{folder}` has format {manifest['format']}, newer than "
            f"{FORMAT}, the newest known here; install a later vit_scaling."
        )
    for name, written in manifest["files"].items():
        path = folder / name
        size = path.stat().length if path.exists() else None
        if size != written["bytes"]:
            raise CorruptCheckpointError(
                f"{damage} {name} had {written['bytes']} bytes when it was written and "
                f"now {'is missing' if size is None else f'has {size}'}."
            )
    return manifest


def _json_crc32(value: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())
