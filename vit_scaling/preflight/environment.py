"""Find or create the virtual environment of the TPU compiler."""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

from vit_scaling.io_files import atomic_folder, user_cache_folder
from vit_scaling.preflight import tpu_worker

# The extra `preflight` of setup.py: the versions whose results are documented.
REQUIREMENTS = ("jax[tpu]==0.10.2", "libtpu==0.0.42.1")
VARIABLE = "VIT_SCALING_TPU_PYTHON"
WORKER = Path(tpu_worker.__file__)


def cache_root() -> Path:
    """Return the folder of the environment and of results."""
    return user_cache_folder() / "preflight"


def find_tpu_python(path: str | None = None) -> Path:
    """Return a Python that has jax and libtpu; create its environment if necessary.

    Args:
        path: The Python, or its environment's folder. None takes the variable
            VIT_SCALING_TPU_PYTHON, else the environment in `cache_root()`, which is
            created at the first use (about 1 GB).

    Raises:
        FileNotFoundError: The path does not exist.
        RuntimeError: jax or libtpu is missing, or the environment cannot be created.
    """
    path = path or os.environ.get(VARIABLE)
    if path is None:
        python = cache_root() / "environment" / "bin" / "python"
        if not _is_complete(python):
            _create_environment(python)
        return python
    python = Path(path) / "bin" / "python" if Path(path).is_dir() else Path(path)
    if not python.is_file():
        raise FileNotFoundError(
            "`tpu_python` must be a Python with jax and libtpu, or its environment's "
            f"folder; {path!r} does not exist. Without it and without {VARIABLE} an "
            "environment is created."
        )
    read_versions(python)
    return python


def worker_variables() -> dict[str, str]:
    """Return the environment variables of the compiler's process.

    PYTHONPATH is left out: it may name TensorFlow's packages, which must not be mixed
    with jax's.
    """
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def read_versions(python: Path) -> Mapping[str, str]:
    """Return the versions of jax, jaxlib and libtpu.

    Raises:
        RuntimeError: One is missing.
    """
    done = subprocess.run(
        [str(python), str(WORKER), "--versions"],
        capture_output=True,
        text=True,
        check=False,
        env=worker_variables(),
    )
    if done.returncode:
        raise RuntimeError(
            f"{python} lacks the TPU compiler: {_last_line(done.stderr)}. Install "
            f"{' '.join(REQUIREMENTS)} into a separate environment."
        )
    return json.loads(done.stdout)


def _is_complete(python: Path) -> bool:
    try:
        return python.is_file() and bool(read_versions(python))
    except RuntimeError:
        return False


def _create_environment(python: Path) -> None:
    folder = python.parent.parent
    print(f"Creating the TPU compiler's environment in {folder} …", file=sys.stderr)
    if folder.exists():  # Its creation was interrupted.
        shutil.rmtree(folder)
    try:
        with atomic_folder(folder) as temporary:
            _install(Path(temporary))
    except subprocess.CalledProcessError as error:
        reason = _last_line(_to_text(error.stderr) or _to_text(error.stdout))
        raise RuntimeError(
            f"The TPU compiler's environment cannot be created: {reason}. Install "
            f"{' '.join(REQUIREMENTS)} yourself and pass --tpu_python."
        ) from error
    except OSError:
        if not _is_complete(python):  # Another process may have created it meanwhile.
            raise


def _install(folder: Path) -> None:
    """Create an environment with the requirements.

    Raises:
        subprocess.CalledProcessError: Python or pip failed.
    """
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    subprocess.run([*pip, *REQUIREMENTS], capture_output=True, text=True, check=True)


def _to_text(output: str | bytes | None) -> str:
    return (
        output.decode(errors="replace") if isinstance(output, bytes) else output or ""
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
