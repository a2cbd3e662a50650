"""Ask the TPU compiler about a program, once: answers are kept by a hash of it."""
# SPDX-License-Identifier: Apache-2.0

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vit_scaling.preflight import environment, program

Answer = Mapping[str, Any]


class TpuCompiler:
    """The TPU compiler in a process of its own, with a memory.

    Args:
        python: What `environment.tpu_python` returned.
        cache_dir: Folder of answers; None keeps none.
        optimized: Where the compiled program is written as text; None writes none.
    """

    def __init__(
        self,
        python: Path,
        cache_dir: Path | None,
        *,
        optimized: Path | None = None,
    ) -> None:
        self.python = python
        self.cache_dir = cache_dir
        self.optimized = optimized

    def answer(self, text: str, topology: str) -> tuple[Answer, bool]:
        """Return what the compiler says of a program, and whether it was remembered.

        Args:
            text: StableHLO, as `program.mended` returned it.
            topology: Such as "v3:2x2".

        Returns:
            Sizes and counts, or an "error" of kind "compile": what does not fit, or
            cannot run, is an answer as well, and kept. What this machine may have
            caused is not kept.

        Raises:
            ValueError: The compiler knows no such topology.
            RuntimeError: The compiler's process died.
        """
        kept = self._place(text, topology)
        if kept is not None and kept.is_file() and self.optimized is None:
            return json.loads(kept.read_text(encoding="utf-8")), True
        found = self._ask(text, topology)
        _refuse_topology(found, topology)
        if kept is not None and program.is_final(found.get("error")):
            _write_whole(kept, json.dumps(found, indent=1))
        return found, False

    def check_topology(self, topology: str) -> None:
        """Ask for a topology alone, before a program for it is made.

        Raises:
            ValueError: The compiler knows no such topology.
            RuntimeError: The compiler's process died.
        """
        _refuse_topology(self._run("--topology", topology), topology)

    def _place(self, text: str, topology: str) -> Path | None:
        """Return the file of an answer: named by all that it depends on."""
        if self.cache_dir is None:
            return None
        depends = [
            program.fingerprint(text),
            topology,
            json.dumps(environment.versions(self.python), sort_keys=True),
            hashlib.sha256(environment.WORKER.read_bytes()).hexdigest(),
        ]
        name = hashlib.sha256("\n".join(depends).encode()).hexdigest()
        return self.cache_dir / f"{name}.json"

    def _ask(self, text: str, topology: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="preflight-") as folder:
            source = Path(folder) / "program.mlir"
            source.write_text(text, encoding="utf-8")
            optimized = [str(self.optimized)] if self.optimized else []
            return self._run(str(source), topology, *optimized)

    def _run(self, subject: str, topology: str, *more: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="preflight-") as folder:
            found = Path(folder) / "answer.json"
            command = [str(self.python), str(environment.WORKER)]
            done = subprocess.run(
                [*command, subject, topology, str(found), *more],
                capture_output=True,
                text=True,
                check=False,
                env=environment.variables(),
            )
            if done.returncode or not found.is_file():
                told = done.stderr.strip()[-500:] or "no message"
                raise RuntimeError(
                    f"The TPU compiler's process ended with code {done.returncode} and "
                    f"no answer (code -9: out of this machine's memory): {told}"
                )
            return json.loads(found.read_text(encoding="utf-8"))


def _refuse_topology(found: Answer, topology: str) -> None:
    if found.get("kind") == "topology":
        raise ValueError(
            f"`topology` must be one that the TPU compiler knows, such as v3:2x2, "
            f"v4:2x2x1 or v5e:2x2; received {topology!r} ({found['error']})."
        )


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that nobody ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    os.replace(file.name, path)
