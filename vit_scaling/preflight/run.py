"""Preflight of a run: lower its step, have it compiled, say what that means."""
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from vit_scaling.preflight import program, report, search


class Lowering(Protocol):
    """What `lowering.StepLowering` offers."""

    @property
    def parameters(self) -> int:
        """Number of trained weights."""

    @property
    def gradient_bytes(self) -> int:
        """Bytes of all gradients."""

    def text(self, per_core_batch: int) -> str:
        """Return the step's program, or raise `program.UnsupportedError`."""


class Compiler(Protocol):
    """What `compiler.TpuCompiler` offers."""

    def answer(self, text: str, topology: str) -> tuple[Mapping[str, Any], bool]:
        """Return the compiler's answer and whether it was remembered."""


class Preflight:
    """A run's step on one device of a topology, at any batch.

    Args:
        lowering: The step, as StableHLO for a batch.
        compiler: Who compiles it.
        topology: Such as "v3:2x2".
        keep_program: Where the program is written, for looking at; None: nowhere.
        say: Told what is going on.
    """

    def __init__(
        self,
        lowering: Lowering,
        compiler: Compiler,
        topology: str,
        *,
        keep_program: Path | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.lowering = lowering
        self.compiler = compiler
        self.topology = topology
        self.device = report.device_of(topology)
        self.keep_program = keep_program
        self.say = say

    def at(self, per_core_batch: int) -> dict[str, Any]:
        """Return the verdict for a batch (see `report.verdict`), and what it is of."""
        self.say(f"Lowering the step for {per_core_batch} images per core …")
        said: dict[str, Any] = {
            "topology": self.topology,
            "device": self.device.name,
            "per_core_batch": per_core_batch,
            "parameters": self.lowering.parameters,
            "all_reduce_bytes": self.lowering.gradient_bytes,
            "note": report.NOTE,
        }
        try:
            text = self.lowering.text(per_core_batch)
        except program.UnsupportedError as error:
            return {**report.refused(error, self.device), **said}
        if self.keep_program is not None:
            self.keep_program.write_text(text, encoding="utf-8")
        self.say(f"Compiling it for {self.topology} …")
        answer, cached = self.compiler.answer(text, self.topology)
        found = report.verdict(answer, text, device=self.device, batch=per_core_batch)
        return {
            **found,
            **said,
            "program": program.fingerprint(text),
            "compiler": dict(answer.get("versions", {})),
            "cached": cached,
        }

    def largest(self, multiple: int = 8) -> dict[str, Any]:
        """Return the verdict for the largest batch that fits, and all that was tried.

        A batch that the run's micro-batches cannot share is no candidate. Where nothing
        fits, it is the verdict of the smallest batch tried. Where the step cannot be
        compiled for another reason than its size, the search ends with that verdict,
        and with the largest batch that fitted so far.
        """
        tried: dict[int, dict[str, Any]] = {}
        pieces = 1
        try:
            tried[multiple] = self.at(multiple)
        except program.IndivisibleBatchError as error:
            pieces = error.micro_batches

        def probe(batch: int) -> tuple[bool, float | None, float]:
            try:
                found = tried[batch] = tried.get(batch) or self.at(batch)
            except program.IndivisibleBatchError:  # Below what was tried first.
                return False, None, 0.0
            if found["fits"] is None:
                raise _NotCompiledError(batch)
            self.say(f"{batch} images per core {_told(found)}.")
            return bool(found["fits"]), found["total_bytes"], found["limit_bytes"]

        try:
            best = pieces * search.largest_batch(
                lambda share: probe(pieces * share),
                multiple=math.lcm(multiple, pieces) // pieces,
            )
            shown = best or min(tried)
        except _NotCompiledError as error:
            best = max((b for b, found in tried.items() if found["fits"]), default=0)
            shown = error.batch
        fits = {str(batch): found["fits"] for batch, found in sorted(tried.items())}
        return {**tried[shown], "largest_batch": best, "tried": fits}


class _NotCompiledError(Exception):
    """A step that cannot be compiled for another reason than its size."""

    def __init__(self, batch: int) -> None:
        super().__init__(batch)
        self.batch = batch


def _told(found: Mapping[str, Any]) -> str:
    word = "fit" if found["fits"] else "do not fit"
    size = found["total_bytes"]
    return word if size is None else f"{word}: {size / 2**30:.2f} GiB"
