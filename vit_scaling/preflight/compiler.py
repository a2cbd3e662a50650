"""Run a compiler on a program; results are cached by a hash of the program."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vit_scaling.io_files import read_json, write_json
from vit_scaling.preflight import collectives, environment, program


@dataclasses.dataclass(frozen=True)
class Compiler:
    """A compiler of accelerators in a separate process, with a cache.

    Args:
        toolchain: Such as `environment.TPU`.
        python: A Python that has its packages, from `environment.find_python`.
        cache_dir: Folder of results; None disables the cache.
        options: Options of the compiler, by name.
        optimized: File for the compiled program as text; None writes none.
    """

    toolchain: environment.Toolchain
    python: Path
    cache_dir: Path | None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optimized: Path | None = None

    def compile(self, text: str, topology: str) -> tuple[Mapping[str, Any], bool]:
        """Compile a program; return the result and whether it came from the cache.

        Args:
            text: StableHLO, from `program.make_pure_stablehlo`, for as many replicas as
                the topology has.
            topology: Such as "v3:2x2".

        Returns:
            Sizes, costs and `collectives`, or "kind": "compile" and an "error". A
            program that does not fit, or that the device cannot run, is a result too,
            and cached. An error that this machine may have caused is not cached.

        Raises:
            ValueError: The compiler does not support the topology.
            RuntimeError: The compiler's process died.
        """
        cached = self._cache_path(text, topology)
        if cached is not None and cached.is_file() and self.optimized is None:
            return read_json(cached), True
        with tempfile.TemporaryDirectory(prefix="preflight-") as folder:
            source, optimized = Path(folder) / "program.mlir", Path(folder) / "hlo.txt"
            source.write_text(text, encoding="utf-8")
            more = (json.dumps(dict(self.options)), str(optimized))
            result = dict(self._run_worker(str(source), topology, *more))
            if optimized.is_file():
                result["collectives"] = collectives.find_collectives(
                    optimized.read_text(encoding="utf-8")
                )
                if self.optimized is not None:
                    shutil.copyfile(optimized, self.optimized)
        if cached is not None and program.is_reproducible(result.get("error")):
            write_json(cached, result)
        return result, False

    def count_replicas(self, topology: str) -> int:
        """Return the number of replicas of a topology, without compiling a program.

        Raises:
            ValueError: The compiler does not support the topology.
            RuntimeError: The compiler's process died.
        """
        return int(self._run_worker("--topology", topology)["replicas"])

    def _cache_path(self, text: str, topology: str) -> Path | None:
        """Return the file of a result, named by everything that it depends on."""
        if self.cache_dir is None:
            return None
        versions = environment.read_versions(self.toolchain, self.python)
        dependencies = [
            program.compute_fingerprint(text),
            topology,
            json.dumps([versions, dict(self.options)], sort_keys=True),
            *(
                hashlib.sha256(file.read_bytes()).hexdigest()
                for file in (self.toolchain.worker, Path(collectives.__file__))
            ),
        ]
        name = hashlib.sha256("\n".join(dependencies).encode()).hexdigest()
        return self.cache_dir / f"{name}.json"

    def _run_worker(self, subject: str, topology: str, *more: str) -> Mapping[str, Any]:
        with tempfile.TemporaryDirectory(prefix="preflight-") as folder:
            file = Path(folder) / "result.json"
            command = [str(self.python), str(self.toolchain.worker)]
            done = subprocess.run(
                [*command, subject, topology, str(file), *more],
                capture_output=True,
                text=True,
                check=False,
                env=environment.worker_variables(),
            )
            if done.returncode or not file.is_file():
                raise RuntimeError(self._describe_death(done))
            result = read_json(file)
        if result.get("kind") == "topology":
            raise ValueError(
                f"`topology` must be one that the {self.toolchain.name} compiler "
                f"supports, such as {self.toolchain.examples}; received {topology!r} "
                f"({result['error']})."
            )
        return result

    def _describe_death(self, done: subprocess.CompletedProcess[str]) -> str:
        start = f"The {self.toolchain.name} compiler's process ended with code"
        message = done.stderr.strip()[-500:] or "no message"
        is_memory = "bad_alloc" in message or "MemoryError" in message
        if done.returncode == -9 or is_memory:
            return (
                f"{start} {done.returncode}: this machine ran out of memory. Free some "
                "(ViT-G/14 takes about 10 GB), or use a larger machine."
            )
        return f"{start} {done.returncode} and no result: {message}"
