"""Compile and load a file system that delays every read, for measurements and tests."""
# SPDX-License-Identifier: Apache-2.0

import ctypes
import functools
import os
import pathlib
import subprocess
import tempfile

# In a checkout only: the package has no C++.
_SOURCE = pathlib.Path(__file__).parents[3] / "tools/delayed_files.cc"


def delayed_path(path: str) -> str:
    """Return the name of a local file on the delayed file system.

    >>> delayed_path("/data/train-*")
    's3://data/train-*'
    """
    return "s3:/" + os.path.abspath(path)


def set_delay(milliseconds: float) -> None:
    """Delay every read and look-up of files whose names begin with `s3://`."""
    _library().SetDelay(ctypes.c_double(milliseconds))


def take_requests() -> int:
    """Return the number of reads and look-ups since the last call."""
    return int(_library().TakeRequests())


def take_max_requests_in_flight() -> int:
    """Return the most requests that waited at one moment since the last call."""
    return int(_library().TakeMaxRequestsInFlight())


def take_max_bytes_in_flight() -> int:
    """Return the most bytes requested at one moment since the last call."""
    return int(_library().TakeMaxBytesInFlight())


@functools.cache
def _library() -> ctypes.CDLL:
    """Compile the plugin and register it with TensorFlow, once in a process.

    Raises:
        FileNotFoundError: This is no source checkout, or there is no C++ compiler.
        RuntimeError: The plugin does not compile.
    """
    import tensorflow as tf

    if not _SOURCE.exists():
        raise FileNotFoundError(
            f"{_SOURCE} does not exist. Delays need a checkout of the source."
        )
    flags = [*tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags()]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "delayed_files.so")
        command = ["g++", "-O2", "-shared", "-fPIC", str(_SOURCE), "-o", path, *flags]
        compiled = subprocess.run(command, capture_output=True, text=True, check=False)
        if compiled.returncode:
            raise RuntimeError(f"{_SOURCE} does not compile:\n{compiled.stderr}")
        library = ctypes.CDLL(path)
        tf.experimental.register_filesystem_plugin(path)
    for name in ("TakeRequests", "TakeMaxRequestsInFlight", "TakeMaxBytesInFlight"):
        getattr(library, name).restype = ctypes.c_int64
    return library
