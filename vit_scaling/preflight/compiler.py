"""Run the TPU compiler on a program; results are cached by a hash of the program."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import hashlib
import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vit_scaling.io_files import read_json, write_json
from vit_scaling.preflight import environment, program


@dataclasses.dataclass(frozen=True)
class TpuCompiler:
    """The TPU compiler in a separate process, with a cache.

    Args:
        python: A Python that has jax and libtpu, from `environment.find_tpu_python`.
        cache_dir: Folder of results; None disables the cache.
        optimized: File for the compiled program as text; None writes none.
    """

    python: Path
    cache_dir: Path | None
    optimized: Path | None = None

    def compile(self, text: str, topology: str) -> tuple[Mapping[str, Any], bool]:
        """Compile a program; return the result and whether it came from the cache.

        Args:
            text: StableHLO, from `program.make_pure_stablehlo`.
            topology: Such as "v3:2x2".

        Returns:
            Sizes and costs, or "kind": "compile" and an "error". A program that does
            not fit, or that a TPU cannot run, is a result too, and cached. An error
            that this machine may have caused is not cached.

        Raises:
            ValueError: The compiler does not support the topology.
            RuntimeError: The compiler's process died.
        """
        cached = self._cache_path(text, topology)
        if cached is not None and cached.is_file() and self.optimized is None:
            return read_json(cached), True
        optimized = [str(self.optimized)] if self.optimized else []
        with tempfile.TemporaryDirectory(prefix="preflight-") as folder:
            source = Path(folder) / "program.mlir"
            source.write_text(text, encoding="utf-8")
            result = self._run_worker(str(source), topology, *optimized)
        if cached is not None and program.is_reproducible(result.get("error")):
            write_json(cached, result)
        return result, False

    def check_topology(self, topology: str) -> None:
        """Check that the compiler supports a topology, without compiling a program.

        Raises:
            ValueError: The compiler does not support the topology.
            RuntimeError: The compiler's process died.
        """
        self._run_worker("--topology", topology)

    def _cache_path(self, text: str, topology: str) -> Path | None:
        """Return the file of a result, named by everything that it depends on."""
        if self.cache_dir is None:
            return None
        dependencies = [
            program.compute_fingerprint(text),
            topology,
            json.dumps(environment.read_versions(self.python), sort_keys=True),
            hashlib.sha256(environment.WORKER.read_bytes()).hexdigest(),
        ]
        name = hashlib.sha256("\n".join(dependencies).encode()).hexdigest()
        return self.cache_dir / f"{name}.json"

    def _run_worker(self, subject: str, topology: str, *more: str) -> Mapping[str, Any]:
        with tempfile.TemporaryDirectory(prefix="preflight-") as folder:
            file = Path(folder) / "result.json"
            command = [str(self.python), str(environment.WORKER)]
            done = subprocess.run(
                [*command, subject, topology, str(file), *more],
                capture_output=True,
                text=True,
                check=False,
                env=environment.worker_variables(),
            )
            if done.returncode or not file.is_file():
                message = done.stderr.strip()[-500:] or "no message"
                raise RuntimeError(
                    f"The TPU compiler's process ended with code {done.returncode} and "
                    f"no result (code -9: out of this machine's memory): {message}"
                )
            result = read_json(file)
        if result.get("kind") == "topology":
            raise ValueError(
                "`topology` must be one that the TPU compiler supports, such as "
                f"v3:2x2, v4:2x2x1 or v5e:2x2; received {topology!r} "
                f"({result['error']})."
            )
        return result
