"""Write a folder whole or not at all."""
# SPDX-License-Identifier: Apache-2.0

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yield a temporary folder beside `path`; rename it to `path` when all went well.

    A failure within leaves neither `path` nor the temporary folder. A model server that
    watches the parent folder sees the version appear in one step.

    Raises:
        FileExistsError: `path` is there already: a served version is never altered.
    """
    target = pathlib.Path(path)
    _refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A leading dot: TensorFlow Serving reads only folders whose name is a number.
    temporary = pathlib.Path(
        tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent)
    )
    try:
        temporary.chmod(0o755)  # mkdtemp's 0700 would shut out the server's user.
        yield temporary
        _refuse_existing(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_existing(target: pathlib.Path) -> None:
    empty = target.is_dir() and not any(target.iterdir())
    if target.exists() and not empty:
        raise FileExistsError(
            f"{target} exists already and is left as it is: name another folder, or "
            "remove it first."
        )
