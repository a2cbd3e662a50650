"""Progress of a run: images seen, core-hours, speed and the remaining time."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(kw_only=True, eq=False)
class Progress:
    """Counts images seen and core-hours, across restarts, and estimates the end.

    Only the time in which steps run counts, without evaluations and checkpoints.

    Attributes:
        batch_size: Images of one step, over all replicas.
        total_steps: Steps of the whole run.
        cores: Cores that core-hours count (see `training.strategy.count_cores`).
        replicas: Replicas that share the batch.
        flops_per_image: Operations of a training step per image.
        peak_flops_per_core: Operations per second that a core can do. If both are
            known, the fraction of the peak is reported.
        clock: Seconds, rising.
        images_seen: Images of all steps so far.
        core_seconds: Seconds of all steps so far, times the cores.
    """

    batch_size: int
    total_steps: int
    cores: int
    replicas: int = 1
    flops_per_image: float | None = None
    peak_flops_per_core: float | None = None
    clock: Callable[[], float] = time.perf_counter
    images_seen: int = 0
    core_seconds: float = 0.0
    _started: float | None = None
    _images_per_second: float = 0.0
    _loops: int = 0

    def begin(self) -> None:
        """Start the clock before a loop of steps."""
        self._started = self.clock()

    def end(self, steps: int) -> None:
        """Count the `steps` steps that ran since `begin`."""
        if self._started is None:
            raise RuntimeError("`end` was called without `begin`.")
        seconds = self.clock() - self._started
        images = steps * self.batch_size
        self._started = None
        self.images_seen += images
        self.core_seconds += seconds * self.cores
        self._images_per_second = images / max(seconds, 1e-9)
        self._loops += 1

    def report(
        self, step: int, median_step_seconds: float | None = None
    ) -> dict[str, float]:
        """Return the metrics to log at `step`, with their units in the names.

        Args:
            step: Number of updates done.
            median_step_seconds: Of the last loop. The first loop's estimate of the end
                rests on it, since that loop's mean includes the compilation.
        """
        rate, share = self._images_per_second, {}
        step_seconds = self.batch_size / rate if rate else float("nan")
        if self._loops == 1 and median_step_seconds is not None:
            step_seconds = median_step_seconds
        if self.flops_per_image and self.peak_flops_per_core:
            peak = self.peak_flops_per_core * self.cores / self.flops_per_image
            share = {"share_of_peak": rate / peak}
        return {
            "images_seen": float(self.images_seen),
            "images_per_second": rate,
            "images_per_second_per_replica": rate / self.replicas,
            "images_per_second_per_core": rate / self.cores,
            **share,
            "core_hours": self.core_seconds / 3600,
            "eta_seconds": (self.total_steps - step) * step_seconds,
        }

    def state(self) -> dict[str, float]:
        """Return the values that a checkpoint keeps."""
        return {"images_seen": self.images_seen, "core_seconds": self.core_seconds}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's values; core-seconds already spent remain."""
        self.images_seen = int(state["images_seen"])
        self.core_seconds = max(self.core_seconds, float(state["core_seconds"]))


def duration_text(seconds: float) -> str:
    """Return seconds as a short text: 42s, 3m05s, 2h07m, 5d03h."""
    if not seconds < float("inf"):
        return "?"
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days}d{hours % 24:02d}h"
    if hours:
        return f"{hours}h{minutes % 60:02d}m"
    return f"{minutes}m{whole % 60:02d}s" if minutes else f"{whole}s"
