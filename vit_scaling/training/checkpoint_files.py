"""The files of one checkpoint: written whole, verified when read.

A checkpoint is a folder `step_000001000` that holds TensorFlow's tensor bundle, whose
keys are `model/PATH`, `optimizer/PATH`, `averages/PATH` and `run/NAME`, and a
`manifest.json` with shapes, checksums and the run's plain state, which is written last
and removed first: a folder without it is no checkpoint. A local folder appears under
its final name only when it is complete. Object stores such as Cloud Storage have no
folders to rename, only names of files: there it fills under its final name.
"""
# SPDX-License-Identifier: Apache-2.0

import errno
import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from etils import epath

FORMAT = 1
MANIFEST = "manifest.json"
BUNDLE = "variables"
_STEP_FOLDER = re.compile(r"step_(\d+)")


class CorruptCheckpointError(ValueError):
    """A checkpoint whose files are missing, cut off or changed."""


def checkpoint_folder(directory: epath.PathLike, step: int) -> epath.Path:
    """Return the folder of the checkpoint of a step."""
    return epath.Path(directory) / f"step_{step:09d}"


def saved_steps(directory: epath.PathLike) -> list[int]:
    """Return the steps of the checkpoints that have a manifest, ascending."""
    found = epath.Path(directory).glob(f"step_*/{MANIFEST}")
    return _steps_of(path.parent.name for path in found)


def step_folders(directory: epath.PathLike) -> list[int]:
    """Return the steps that a folder has anything of, complete or not, ascending."""
    return _steps_of(path.name for path in epath.Path(directory).glob("step_*"))


def is_remote(path: epath.PathLike) -> bool:
    """Return whether a path is on an object store, where renaming copies each file."""
    return "://" in str(path)


def remove_checkpoint(folder: epath.Path) -> None:
    """Remove a folder so that it is no checkpoint from the first moment on."""
    if folder.exists():
        (folder / MANIFEST).unlink(missing_ok=True)
        folder.rmtree()


def _steps_of(names: Iterable[str]) -> list[int]:
    matches = (_STEP_FOLDER.fullmatch(name) for name in names)
    return sorted(int(match[1]) for match in matches if match)


def write_checkpoint(
    folder: epath.Path,
    step: int,
    values: Mapping[str, np.ndarray],
    state: Mapping[str, Any],
) -> None:
    """Write values, then the manifest, into an existing, empty folder, to the disk."""
    keys = sorted(values)
    with tf.device("CPU:0"):
        tf.raw_ops.SaveV2(
            prefix=str(folder / BUNDLE),
            tensor_names=keys,
            shape_and_slices=[""] * len(keys),
            tensors=[tf.constant(values[key]) for key in keys],
        )
    files = {}
    for path in sorted(folder.iterdir()):
        files[path.name] = {"bytes": path.stat().length, "crc32": _crc32(path)}
        _flush_to_disk(path)
    manifest = {
        "format": FORMAT,
        "step": step,
        "state": dict(state),
        "files": files,
        "variables": {
            key: {"shape": list(values[key].shape), "dtype": str(values[key].dtype)}
            for key in keys
        },
    }
    write_json(folder / MANIFEST, {**manifest, "crc32": _json_crc32(manifest)})


def read_checkpoint(
    folder: epath.PathLike, *, prefixes: Iterable[str] = ("",)
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Verify a checkpoint and return its arrays, by key, and its manifest.

    Args:
        folder: A folder `step_…`.
        prefixes: Only keys that start with one of these are read.

    Raises:
        FileNotFoundError: The folder does not exist.
        CorruptCheckpointError: A file is missing, cut off or changed.
        ValueError: It was written by a later, unknown format.
    """
    folder = epath.Path(folder)
    if not folder.is_dir():
        near = saved_steps(folder.parent)
        raise FileNotFoundError(
            f"There is no checkpoint `{folder}`; steps saved there: {near or 'none'}."
        )
    manifest = _verified_manifest(folder)
    starts = tuple(prefixes)
    keys = [key for key in manifest["variables"] if key.startswith(starts)]
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
            f"The checkpoint `{folder}` cannot be read: {error.message}"
        ) from error
    arrays = [tensor.numpy() for tensor in tensors]
    return dict(zip(keys, arrays, strict=True)), manifest


def write_json(path: epath.PathLike, value: Any) -> None:
    """Write JSON so that the file is either the old one or the new one, never half."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return a value as the JSON text of a file."""
    return json.dumps(value, indent=1) + "\n"


def write_text(path: epath.PathLike, text: str) -> None:
    """Write a text so that the file is either the old one or the new one."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    working = path.with_name(f".{path.name}.writing")
    working.write_text(text)
    _flush_to_disk(working)
    working.replace(path)


def remedy(error: Exception) -> str:
    """Return what to do where a run's file could not be written."""
    # TensorFlow's own errors carry the system's text, but not its number.
    of_room = map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
    full = any(text in str(error) for text in of_room)
    first = "Make room (or raise the quota)" if full else "Mend that"
    return f"{first} and start the same command again; it goes on from the last"


def _verified_manifest(folder: epath.Path) -> dict[str, Any]:
    try:
        manifest = dict(json.loads((folder / MANIFEST).read_text()))
    except (FileNotFoundError, TypeError, ValueError) as error:
        raise CorruptCheckpointError(
            f"The checkpoint `{folder}` is damaged: {MANIFEST} is missing or no JSON."
        ) from error
    if manifest.pop("crc32", None) != _json_crc32(manifest):
        raise CorruptCheckpointError(
            f"The checkpoint `{folder}` is damaged: {MANIFEST} does not match its own "
            "checksum."
        )
    if manifest["format"] > FORMAT:  # Not damage: a flipped bit fails the checksum.
        raise ValueError(
            f"The checkpoint `{folder}` has format {manifest['format']}, newer than "
            f"{FORMAT}, the newest known here; install a later vit_scaling."
        )
    for name, written in manifest["files"].items():
        path = folder / name
        size = path.stat().length if path.exists() else None
        if size != written["bytes"] or _crc32(path) != written["crc32"]:
            raise CorruptCheckpointError(
                f"The checkpoint `{folder}` is damaged: {name} had "
                f"{written['bytes']} bytes when it was written and now "
                + ("is missing." if size is None else f"has {size}, changed.")
            )
    return manifest


def _json_crc32(value: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _crc32(path: epath.Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _flush_to_disk(path: epath.Path) -> None:
    """Make a local file outlive a power cut; remote stores do so by themselves."""
    if not is_remote(path):
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def flush_folder(folder: epath.Path) -> None:
    """Make a local folder's list of names outlive a power cut."""
    if not is_remote(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
