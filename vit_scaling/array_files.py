"""Read and write files of named arrays: .npz and .safetensors, without pickles."""
# SPDX-License-Identifier: Apache-2.0

import os
import zipfile
import zlib
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from vit_scaling import io_files

Arrays = dict[str, np.ndarray]
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError)


def read_npz(path: str) -> Arrays:
    """Return all arrays of an .npz; bfloat16, which NumPy stores as |V2, as float32.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is truncated, is not an .npz, or holds Python objects (a
            pickle could run code, so none is ever loaded).
    """
    _check_exists(path)
    try:
        # NumPy, given a path, leaves a truncated file open.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: _as_float32(name, file[name]) for name in file.files}
    except (*UNREADABLE, TypeError, AttributeError) as error:
        raise ValueError(f"{_unreadable(path, '.npz')} ({error})") from error


def read_safetensors(path: str) -> tuple[Arrays, dict[str, str]]:
    """Return all arrays of a .safetensors file, bfloat16 as float32, and its metadata.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is truncated or is not a .safetensors file.
    """
    import safetensors  # pip install safetensors

    _check_exists(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{_unreadable(path, '.safetensors')} ({error})") from error
    return {name: _as_float32(name, arrays[name]) for name in arrays}, metadata


def write_npz(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz atomically."""
    # np.savez would not allow arrays with the names of its own arguments.
    with (
        io_files.atomic_file(path) as temporary,
        zipfile.ZipFile(os.fspath(temporary), "w") as file,
    ):
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)


def write_safetensors(
    path: str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write a .safetensors file atomically."""
    import safetensors.numpy  # pip install safetensors

    dense = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    with io_files.atomic_file(path) as temporary:
        safetensors.numpy.save_file(dense, os.fspath(temporary), dict(metadata))


def _as_float32(name: str, array: np.ndarray) -> np.ndarray:
    """Return floating-point arrays as float32, exactly or (float64) rounded."""
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        array = array.view(ml_dtypes.bfloat16)
    if array.dtype.kind == "V" and array.dtype != ml_dtypes.bfloat16:
        raise ValueError(f"array {name!r} is of unknown type {array.dtype}")
    if array.dtype == ml_dtypes.bfloat16 or array.dtype.kind == "f":
        return array.astype(np.float32)
    return array


def _check_exists(path: str) -> None:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path!r} does not exist.")


def _unreadable(path: str, kind: str) -> str:
    return (
        f"{path!r} can't be read as {kind}: it is truncated, of another kind, or holds "
        "Python objects. Download it again and compare its size with the publisher's"
    )
