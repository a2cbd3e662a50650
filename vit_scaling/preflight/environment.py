"""The virtual environment of the TPU compiler: given, found, or made."""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path

from vit_scaling.preflight import tpu_worker

# The extra `preflight` of setup.py: versions whose answers the documentation records.
REQUIREMENTS = ("jax[tpu]==0.10.2", "libtpu==0.0.42.1")
VARIABLE = "VIT_SCALING_TPU_PYTHON"
WORKER = Path(tpu_worker.__file__)


def cache_root() -> Path:
    """Return the folder of environments and answers, by the XDG convention."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vit_scaling" / "preflight"


def tpu_python(given: str | None = None) -> Path:
    """Return a Python that has jax and libtpu, making its environment if need be.

    Args:
        given: Path of one; None takes the variable VIT_SCALING_TPU_PYTHON, else the
            environment in `cache_root()`, which is made the first time (about 1 GB).

    Raises:
        FileNotFoundError: What was given is not there.
        RuntimeError: It lacks jax or libtpu, or the environment cannot be made.
    """
    chosen = given or os.environ.get(VARIABLE)
    if chosen is None:
        python = cache_root() / "environment" / "bin" / "python"
        if not _whole(python):
            _make(python)
        return python
    python = Path(chosen)
    if python.is_dir():
        python = python / "bin" / "python"
    if not python.is_file():
        raise FileNotFoundError(
            f"`tpu_python` must be a Python with jax and libtpu, or its environment's "
            f"folder; {chosen!r} is not there. Leave it (and {VARIABLE}) out, and one "
            "is made."
        )
    versions(python)
    return python


def variables() -> dict[str, str]:
    """Return the environment of the compiler's process, without our own packages.

    TensorFlow's, which PYTHONPATH may name, must not reach the other libraries.
    """
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def versions(python: Path) -> Mapping[str, str]:
    """Return the versions of jax, jaxlib and libtpu.

    Raises:
        RuntimeError: One is missing.
    """
    done = subprocess.run(
        [str(python), str(WORKER), "--versions"],
        capture_output=True,
        text=True,
        check=False,
        env=variables(),
    )
    if done.returncode:
        raise RuntimeError(
            f"{python} lacks the TPU compiler: {_last_line(done.stderr)}. Install "
            f"{' '.join(REQUIREMENTS)} into an environment of its own."
        )
    return json.loads(done.stdout)


def _whole(python: Path) -> bool:
    """Return whether the environment was made to the end."""
    if not python.is_file():
        return False
    try:
        return bool(versions(python))
    except RuntimeError:
        return False


def _make(python: Path) -> None:
    folder = python.parent.parent
    print(f"Making the TPU compiler's environment in {folder} …", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, and renamed when it is whole: two may make it at the same time.
    with tempfile.TemporaryDirectory(prefix="making_", dir=folder.parent) as scratch:
        made = Path(scratch) / folder.name
        try:
            _fill(made)
        except subprocess.CalledProcessError as error:
            why = _last_line(_text(error.stderr) or _text(error.stdout))
            raise RuntimeError(
                f"The TPU compiler's environment cannot be made: {why}. Install "
                f"{' '.join(REQUIREMENTS)} yourself and pass --tpu_python."
            ) from error
        if _whole(python):  # Another process was first.
            return
        if folder.exists():  # One that was not made to its end.
            folder.rename(Path(scratch) / "unfinished")
        try:
            made.rename(folder)
        except OSError:
            if not _whole(python):
                raise


def _fill(folder: Path) -> None:
    """Make an environment with the requirements in it.

    Raises:
        subprocess.CalledProcessError: Python or pip could not.
    """
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    subprocess.run([*pip, *REQUIREMENTS], capture_output=True, text=True, check=True)


def _text(output: str | bytes | None) -> str:
    return (
        output.decode(errors="replace") if isinstance(output, bytes) else output or ""
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
