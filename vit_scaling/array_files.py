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
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    MemoryError,
    NotImplementedError,
    OSError,
    ValueError,
)
# Trained weights become less than 1.5 times smaller by compression, zeros 1,000 times.
MAX_EXPANSION, UNCHECKED_BYTES = 20, 2**30


def read_npz(path: str) -> Arrays:
    """Return all arrays of an .npz; bfloat16, which NumPy stores as |V2, as float32.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is truncated, is not an .npz, holds Python objects (a
            pickle could run code, so none is ever loaded), or would expand to many
            times its size.
    """
    _check_exists(path)
    _check_expansion(path)
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
        ValueError: The file is truncated, is not a .safetensors file, or has numbers
            of 8 bits or fewer.
    """
    import safetensors  # pip install safetensors

    _check_exists(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            small = [name for name in types if types[name].startswith(("F8", "F4"))]
            arrays = {} if small else {name: file.get_tensor(name) for name in types}
            metadata = dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{_unreadable(path, '.safetensors')} ({error})") from error
    if small:
        raise ValueError(
            f"Array {small[0]!r} of {path!r} is of type {types[small[0]]}; numbers of "
            "8 bits or fewer are not supported. Give the weights before quantisation."
        )
    return {name: _as_float32(name, arrays[name]) for name in arrays}, metadata


def read_npz_comment(path: str) -> str:
    """Return the comment of an .npz, which `np.load` does not show; "" without one.

    Raises:
        ValueError: It is no text, or the file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment.decode()
    except UNREADABLE as error:
        raise ValueError(f"{_unreadable(path, '.npz')} ({error})") from error


def write_npz(
    path: str, arrays: Mapping[str, np.ndarray], *, comment: str = ""
) -> None:
    """Write an .npz atomically, with a comment that only `read_npz_comment` shows."""
    # np.savez would not allow arrays with the names of its own arguments.
    with (
        io_files.atomic_local_file(path) as temporary,
        zipfile.ZipFile(os.fspath(temporary), "w") as file,
    ):
        file.comment = comment.encode()
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)


def write_safetensors(
    path: str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write a .safetensors file atomically."""
    import safetensors.numpy  # pip install safetensors

    dense = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    with io_files.atomic_local_file(path) as temporary:
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


def _check_expansion(path: str) -> None:
    """Raise if an .npz, which may be made to fill the memory, would expand too much."""
    try:
        with zipfile.ZipFile(path) as archive:
            expanded = sum(entry.file_size for entry in archive.infolist())
    except UNREADABLE:
        return  # The reader reports what is wrong.
    size = os.path.getsize(path)
    if expanded > max(UNCHECKED_BYTES, MAX_EXPANSION * size):
        raise ValueError(
            f"{path!r} would expand to {expanded / 2**30:.1f} GiB, "
            f"{expanded / size:,.0f} times its size; weights expand at most "
            f"{MAX_EXPANSION} times. Nothing was read: download the file again."
        )


def _check_exists(path: str) -> None:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path!r} does not exist.")


def _unreadable(path: str, kind: str) -> str:
    return (
        f"{path!r} can't be read as {kind}: it is truncated, of another kind, or holds "
        "Python objects. Download it again and compare its size with the publisher's"
    )
