"""Preflight of a run: lower its step, compile it, and report whether it fits."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vit_scaling.checks import check_power_of_two
from vit_scaling.preflight import program, report
from vit_scaling.preflight.compiler import Compiler
from vit_scaling.preflight.lowering import StepLowering
from vit_scaling.preflight.targets import Target

# From a batch to (whether it fits, bytes used or None if unknown, bytes available).
Probe = Callable[[int], tuple[bool, float | None, float]]


@dataclasses.dataclass(frozen=True)
class Preflight:
    """A run's step on all devices of a target, at any batch.

    Args:
        lowering: Makes the step's StableHLO for a batch.
        compiler: Compiles it.
        target: The devices to compile for.
        replicas: Their number, from `Compiler.count_replicas`.
        program_path: File for the program's text; None writes none.
        log: Called with a line about each stage.
    """

    lowering: StepLowering
    compiler: Compiler
    target: Target
    replicas: int
    program_path: Path | None = None
    log: Callable[[str], None] = lambda line: None

    def check_batch(self, per_core_batch: int) -> dict[str, Any]:
        """Return the report on a batch (see `report.make_report`) and its settings."""
        self.log(f"Lowering the step for {per_core_batch} images per core …")
        topology, device = self.target.topology, self.target.device
        replicas = self.replicas
        settings: dict[str, Any] = {
            "topology": topology,
            "replicas": replicas,
            "device": device.name,
            "per_core_batch": per_core_batch,
            "parameters": self.lowering.parameters,
            "note": report.NOTE if device.tpu else report.GPU_NOTE,
        }
        try:
            text = self.lowering.lower(per_core_batch, replicas, for_tpu=device.tpu)
        except program.UnsupportedError as error:
            unsupported = {
                "unsupported_operations": error.operations,
                "error": str(error),
            }
            return {**report.make_empty_report(device), **unsupported, **settings}
        if self.program_path is not None:
            self.program_path.write_text(text, encoding="utf-8")
        self.log(f"Compiling it for {replicas} replicas of {topology} …")
        result, cached = self.compiler.compile(text, topology)
        return {
            **report.make_report(result, text, device=device, batch=per_core_batch),
            **settings,
            "program": program.compute_fingerprint(text),
            "compiler": dict(result.get("versions", {})),
            "cached": cached,
        }

    def find_largest_batch(self, multiple: int = 8) -> dict[str, Any]:
        """Return the report on the largest batch that fits, and all batches tried.

        Only batches that are divisible by the run's micro-batches are tried. If nothing
        fits, the report is on the smallest batch tried. If the step cannot be compiled
        for another reason than its size, the search ends with the report on that batch
        and with the largest batch that fitted so far.

        Args:
            multiple: Step of the search, a power of two.
        """
        tried: dict[int, dict[str, Any]] = {}
        micro_batches = 1
        try:
            tried[multiple] = self.check_batch(multiple)
        except program.IndivisibleBatchError as error:
            micro_batches = error.micro_batches

        def probe(batch: int) -> tuple[bool, float | None, float]:
            try:
                found = tried[batch] = tried.get(batch) or self.check_batch(batch)
            except program.IndivisibleBatchError:  # Smaller than the first batch.
                return False, None, 0.0
            if found["fits"] is None:
                raise _NotCompiledError(batch)
            self.log(f"{batch} images per core {_describe_fit(found)}.")
            return bool(found["fits"]), found["total_bytes"], found["limit_bytes"]

        try:
            largest = micro_batches * find_largest_batch(
                lambda size: probe(micro_batches * size),
                multiple=math.lcm(multiple, micro_batches) // micro_batches,
            )
            reported = largest or min(tried)
        except _NotCompiledError as error:
            fitting = [batch for batch, found in tried.items() if found["fits"]]
            largest, reported = max(fitting, default=0), error.batch
        fits = {str(batch): found["fits"] for batch, found in sorted(tried.items())}
        return {**tried[reported], "largest_batch": largest, "tried": fits}


class _NotCompiledError(Exception):
    """The step cannot be compiled for another reason than its size."""

    def __init__(self, batch: int) -> None:
        super().__init__(batch)
        self.batch = batch


def _describe_fit(found: Mapping[str, Any]) -> str:
    word = "fit" if found["fits"] else "do not fit"
    size = found["total_bytes"]
    return word if size is None else f"{word}: {size / 2**30:.2f} GiB"


def find_largest_batch(probe: Probe, *, multiple: int = 8) -> int:
    """Return the largest batch that fits among 1, 2, 4, … and multiples of `multiple`.

    Memory grows almost linearly with the batch, so two probes predict the next one. The
    gap between what fits and what does not is narrowed until it is one multiple.

    Args:
        probe: Compiles for a batch.
        multiple: Step of the search and first batch to probe, a power of two. On a TPU
            a tile has 8 rows.

    Returns:
        The batch, or 0 if not even 1 fits.

    Raises:
        ValueError: `multiple` is not a power of two.
    """
    check_power_of_two(multiple=multiple)
    below, above = 0, None  # The largest that fits and the smallest that does not.
    used_bytes: list[tuple[int, float]] = []
    batch = multiple
    while True:
        fits, used, limit = probe(batch)
        if used:
            used_bytes.append((batch, used))
        below, above = (batch, above) if fits else (below, batch)
        if above is not None and above - below <= multiple:
            break
        predicted = _predict_largest(used_bytes, limit) if below else None
        batch = _choose_batch(predicted, below, above, multiple)
    if below or multiple == 1:
        return below
    batch = multiple // 2
    while batch and not probe(batch)[0]:
        batch //= 2
    return batch


def _predict_largest(used_bytes: list[tuple[int, float]], limit: float) -> float | None:
    """Return the batch at which a line through the last two sizes reaches the limit."""
    if len(used_bytes) < 2:
        return None
    (batch1, used1), (batch2, used2) = used_bytes[-2:]
    slope = (used2 - used1) / (batch2 - batch1)
    return batch2 + (limit - used2) / slope if slope > 0 else None


def _choose_batch(
    predicted: float | None, below: int, above: int | None, multiple: int
) -> int:
    """Return the next batch to probe, strictly between `below` and `above`."""
    if predicted is None:
        predicted = 2 * below if above is None else (below + above) / 2
    batch = int(predicted // multiple) * multiple
    # The prediction may be wrong: stay in the gap, and grow at most eight-fold.
    highest = 8 * max(below, multiple) if above is None else above - multiple
    return min(max(batch, below + multiple), highest)
