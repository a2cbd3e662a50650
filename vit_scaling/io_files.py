"""Write files and folders atomically, and read and write JSON, on any file system.

Paths may be local or, through `etils.epath`, on an object store such as gs://.
"""
# SPDX-License-Identifier: Apache-2.0

import concurrent.futures
import contextlib
import json
import math
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from etils import epath

Item = TypeVar("Item")
Result = TypeVar("Result")
_BUFFER_BYTES = 2**20
PARTIAL_PREFIX = ".partial-"  # Begins the names of files that are being written.


def user_cache_folder() -> Path:
    """Return this package's folder in the user's cache, by the XDG convention."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vit_scaling"


def is_remote(path: epath.PathLike) -> bool:
    """Whether a path is on an object store, where a rename copies every file."""
    return "://" in os.fspath(path)


def absolute_path(path: epath.PathLike) -> str:
    """Return a name that does not depend on the working folder or on links."""
    return os.fspath(path) if is_remote(path) else os.path.realpath(path)


def is_partial(path: epath.PathLike) -> bool:
    """Whether a path is the temporary file of an `atomic_file` in progress."""
    return os.path.basename(os.fspath(path)).startswith(PARTIAL_PREFIX)


@contextlib.contextmanager
def atomic_file(path: epath.PathLike) -> Iterator[epath.Path]:
    """Context manager: a temporary path that replaces `path` if the block succeeds.

    Readers see the old file or the new one, never a part. The temporary file has the
    same suffix and folder and a name that no other process or machine uses. It is
    flushed to the disk before the rename, and removed on an error. Missing parent
    folders are created.
    """
    target = epath.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{PARTIAL_PREFIX}{uuid.uuid4().hex}-{target.name}")
    try:
        yield temporary
        flush_file(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_local_file(path: epath.PathLike) -> Iterator[epath.Path]:
    """Context manager: an `atomic_file` whose temporary path is local.

    For libraries that write local files only. On an object store the file is copied.
    """
    if not is_remote(path):
        with atomic_file(path) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory() as folder:
        local = epath.Path(folder) / os.path.basename(path)
        yield local
        with atomic_file(path) as temporary:
            local.copy(temporary)


@contextlib.contextmanager
def atomic_folder(path: epath.PathLike) -> Iterator[epath.Path]:
    """Context manager: a temporary local folder that becomes `path` on success.

    A failure leaves neither `path` nor the temporary folder. A model server that
    watches the parent sees the folder appear in one step. An empty `path` is replaced.
    On an object store the files are copied one by one, those of subfolders first: a
    SavedModel's saved_model.pb, by which a server recognises it, comes last.

    Raises:
        FileExistsError: `path` exists and is not empty.
    """
    target = epath.Path(path)
    _check_vacant(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A leading dot: TensorFlow Serving reads only folders whose name is a number.
    place = None if is_remote(target) else target.parent
    temporary = epath.Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=place))
    try:
        os.chmod(temporary, 0o755)  # mkdtemp's 0700 would shut out a server's user.
        yield temporary
        _check_vacant(target)
        if is_remote(target):
            _upload(temporary, target)
        else:
            os.rename(temporary, target)  # Replaces an empty folder in one step.
    finally:
        if temporary.exists():
            temporary.rmtree()


def write_text(path: epath.PathLike, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: epath.PathLike, value: Any) -> None:
    """Write a JSON file atomically; see `json_text`."""
    write_text(path, json_text(value))


def read_json(path: epath.PathLike) -> Any:
    """Return the decoded content of a JSON file.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not JSON; the message names it.
    """
    text = epath.Path(path).read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)} is not valid JSON: {error}.") from error


def json_text(value: Any) -> str:
    """Return indented JSON of a value after `to_json_types`, with a final newline."""
    return json.dumps(to_json_types(value), indent=1, ensure_ascii=False) + "\n"


def to_json_types(value: Any) -> Any:
    """Convert NumPy values to Python's own, and numbers that are not finite to None.

    Example:
        >>> to_json_types({"loss": float("nan"), "size": (2, 3)})
        {'loss': None, 'size': [2, 3]}
    """
    if isinstance(value, Mapping):
        return {str(key): to_json_types(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_types(item) for item in value]
    if hasattr(value, "tolist"):
        return to_json_types(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = 256
) -> list[Result]:
    """Return `function` of every item, in order; for many short reads of files.

    An object store takes tens of milliseconds for each, but answers many at once.

    Args:
        function: Called in a thread; its first error is raised.
        items: Its arguments.
        threads: Number of calls at the same time.
    """
    todo = list(items)
    results: list[Result] = []
    at_once = 16 * threads  # A waiting call takes 6 kB; a set may have 30,000 shards.
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(todo), at_once):
            results += pool.map(function, todo[first : first + at_once])
    return results


def open_file(path: epath.PathLike) -> Any:
    """Open a file for reading bytes."""
    if is_remote(path):
        return epath.Path(path).open("rb")
    return open(path, "rb", buffering=_BUFFER_BYTES)


def flush_file(path: epath.PathLike) -> None:
    """Flush a local file to the disk, so that it survives a power cut.

    Object stores do this themselves.
    """
    if not is_remote(path):
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def flush_folder(path: epath.PathLike) -> None:
    """Flush a local folder's list of names to the disk."""
    if not is_remote(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _upload(folder: epath.Path, target: epath.Path) -> None:
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    try:
        for file in sorted(files, key=lambda file: (-len(file.parts), file)):
            copy = target / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            epath.Path(file).copy(copy)
    except BaseException:
        target.rmtree(missing_ok=True)
        raise


def _check_vacant(target: epath.Path) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(
            f"{target} exists and is not overwritten. Choose another folder, or remove "
            "it first."
        )
