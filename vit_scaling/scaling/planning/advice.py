"""Find the smallest change that makes a run fit a device."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Callable

from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.scaling.planning.devices import DEVICES, Device
from vit_scaling.scaling.planning.memory import memory
from vit_scaling.scaling.planning.step import Step

_SMALLEST_OPTIMIZER = "adafactor"
_CHUNK = 512  # Queries.


def find_nearest_fit(
    shape: ViTShape, *, batch: int, device: Device, step: Step
) -> str | None:
    """Return the flags that make the run fit; None if no known device is large enough.

    Tried in turn: attention in chunks, blocks computed again, fewer images, both, the
    same with Adafactor, and the smallest device that fits.
    """
    again = dataclasses.replace(step, rematerialize="all")
    smaller = dataclasses.replace(step, optimizer=_SMALLEST_OPTIMIZER)
    smallest = dataclasses.replace(again, optimizer=_SMALLEST_OPTIMIZER)
    words = {
        "remat": "--rematerialize=all",
        "small": f"--optimizer={smaller.optimizer}",
    }
    chunked = dataclasses.replace(step, attention_chunk=_CHUNK)
    tries: list[tuple[Step, int | None, list[str]]] = [
        (chunked, batch, [f"--attention_chunk={_CHUNK}"]),
        (again, batch, [words["remat"]]),
        (step, None, []),
        (again, None, [words["remat"]]),
    ]
    if step.optimizer != _SMALLEST_OPTIMIZER:
        tries += [
            (smaller, batch, [words["small"]]),
            (smallest, batch, [words["small"], words["remat"]]),
            (smallest, None, [words["small"], words["remat"]]),
        ]
    for changed, images, flags in tries:
        most = largest_batch(shape, device=device, step=changed)
        if most >= (images or 1):
            number = [] if images else [f"--batch={most}"]
            return " ".join([*flags, *number])
    return _find_device(shape, batch, step)


def _find_device(shape: ViTShape, batch: int, step: Step) -> str | None:
    for other in sorted(DEVICES.values(), key=lambda device: device.memory_bytes):
        changed = dataclasses.replace(step, **other.layout)
        if _fits(shape, other, changed)(batch):
            return f"--device={other.name}"
    return None


def largest_batch(shape: ViTShape, *, device: Device, step: Step) -> int:
    """Return the largest number of images per device that fits; 0 if none does."""
    fits = _fits(shape, device, step)
    low, high = 0, 1
    while fits(high) and high < 2**20:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _fits(shape: ViTShape, device: Device, step: Step) -> Callable[[int], bool]:
    limit = device.memory_bytes

    def fits(batch: int) -> bool:
        used = memory(shape, batch=batch, step=step, limit_bytes=limit)
        return used.total <= limit

    return fits
