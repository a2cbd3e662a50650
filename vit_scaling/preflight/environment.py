"""Compilers of accelerators, each in a virtual environment of its own."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

from vit_scaling.io_files import atomic_folder, user_cache_folder
from vit_scaling.preflight import gpu_worker, tpu_worker


@dataclasses.dataclass(frozen=True)
class Toolchain:
    """A compiler of accelerators: its worker and the packages that it needs.

    Attributes:
        name: Name in messages and of the flag `--NAME_python`, such as "TPU".
        worker: Program run by the environment's Python; see `tpu_worker.py` for its
            arguments and results.
        requirements: Packages to install, of the versions whose results are documented.
        folder: Name of the environment's folder in `cache_root()`.
        examples: Topologies, for messages.
    """

    name: str
    worker: Path
    requirements: tuple[str, ...]
    folder: str
    examples: str

    @property
    def flag(self) -> str:
        """The argument that names the Python."""
        return f"{self.name.lower()}_python"

    @property
    def variable(self) -> str:
        """The environment variable that names the Python."""
        return f"VIT_SCALING_{self.flag.upper()}"


# The requirements are the extra `preflight` of setup.py.
TPU = Toolchain(
    "TPU",
    Path(tpu_worker.__file__),
    ("jax[tpu]==0.10.2", "libtpu==0.0.42.1"),
    folder="environment",
    examples="v3:2x2, v4:2x2x1 or v5e:2x2",
)


GPU = Toolchain(
    "GPU",
    Path(gpu_worker.__file__),
    ("jax[cuda12]==0.10.2",),
    folder="gpu_environment",
    examples="h100, h100x8 or a100_80gb",
)


def cache_root() -> Path:
    """Return the folder of the environment and of results."""
    return user_cache_folder() / "preflight"


def find_python(toolchain: Toolchain, path: str | None = None) -> Path:
    """Return a Python that has a compiler; create its environment if necessary.

    Args:
        toolchain: The compiler.
        path: The Python, or its environment's folder. None takes the toolchain's
            variable, else the environment in `cache_root()`, which is created at the
            first use.

    Raises:
        FileNotFoundError: The path does not exist.
        RuntimeError: A package is missing, or the environment cannot be created.
    """
    path = path or os.environ.get(toolchain.variable)
    if path is None:
        python = cache_root() / toolchain.folder / "bin" / "python"
        if not _is_complete(toolchain, python):
            _create_environment(toolchain, python)
        return python
    python = Path(path) / "bin" / "python" if Path(path).is_dir() else Path(path)
    if not python.is_file():
        raise FileNotFoundError(
            f"`{toolchain.flag}` must be a Python with the {toolchain.name} compiler, "
            f"or its environment's folder; {path!r} does not exist. Without it and "
            f"without {toolchain.variable} an environment is created."
        )
    read_versions(toolchain, python)
    return python


def worker_variables() -> dict[str, str]:
    """Return the environment variables of the compiler's process.

    PYTHONPATH is left out: it may name TensorFlow's packages, which must not be mixed
    with jax's.
    """
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def read_versions(toolchain: Toolchain, python: Path) -> Mapping[str, str]:
    """Return the versions of the compiler's packages.

    Raises:
        RuntimeError: One is missing.
    """
    done = subprocess.run(
        [str(python), str(toolchain.worker), "--versions"],
        capture_output=True,
        text=True,
        check=False,
        env=worker_variables(),
    )
    if done.returncode:
        raise RuntimeError(
            f"{python} lacks the {toolchain.name} compiler: "
            f"{_last_line(done.stderr)}. Install {' '.join(toolchain.requirements)} "
            "into a separate environment."
        )
    return json.loads(done.stdout)


def _is_complete(toolchain: Toolchain, python: Path) -> bool:
    try:
        return python.is_file() and bool(read_versions(toolchain, python))
    except RuntimeError:
        return False


def _create_environment(toolchain: Toolchain, python: Path) -> None:
    folder, name = python.parent.parent, toolchain.name
    print(f"Creating the {name} compiler's environment in {folder} …", file=sys.stderr)
    if folder.exists():  # Its creation was interrupted.
        shutil.rmtree(folder)
    try:
        with atomic_folder(folder) as temporary:
            _install(toolchain, Path(temporary))
    except subprocess.CalledProcessError as error:
        reason = _last_line(_to_text(error.stderr) or _to_text(error.stdout))
        raise RuntimeError(
            f"The {name} compiler's environment cannot be created: {reason}. Install "
            f"{' '.join(toolchain.requirements)} yourself and pass --{toolchain.flag}."
        ) from error
    except OSError:
        if not _is_complete(
            toolchain, python
        ):  # Another process may have created it meanwhile.
            raise


def _install(toolchain: Toolchain, folder: Path) -> None:
    """Create an environment with a compiler's requirements.

    Raises:
        subprocess.CalledProcessError: Python or pip failed.
    """
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    command = [*pip, *toolchain.requirements]
    subprocess.run(command, capture_output=True, text=True, check=True)


def _to_text(output: str | bytes | None) -> str:
    return (
        output.decode(errors="replace") if isinstance(output, bytes) else output or ""
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
