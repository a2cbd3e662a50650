"""Estimate the images per second of training, and say what kind of estimate it is."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
from typing import NamedTuple

from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.scaling.planning.devices import Device
from vit_scaling.scaling.planning.flops import flops, parameters
from vit_scaling.scaling.planning.memory import memory
from vit_scaling.scaling.planning.step import Step

# Bytes that a step moves, in those kept for the backward pass: the TPU compiler counts
# 9.3 (Ti/16) and 9.2 (B/16 at 64 images). A parameter of G/14 takes 35 a step.
_MOVED = 9.2
_MOVED_PER_PARAMETER = 35.0
# Fractions of peak rate and bandwidth that the eleven models of Figure 2 reach on a TPU
# v3 core: at 64 images a step, the sum of both times is within 21 % of each slope. A
# constant 40 % of the peak is up to 3.1 times too fast.
COMPUTE_FRACTION = 0.73
BANDWIDTH_FRACTION = 0.438
UTILISATION = 0.4  # Of the peak alone, as the paper's large models reach.


class Rate(NamedTuple):
    """A rate of training on one device.

    Attributes:
        images_per_second: The rate; None if the device's peak is not known.
        at_most: Bound by the device's peak rate and bandwidth; None if not known.
        source: What kind of number the rate is, in words.
    """

    images_per_second: float | None
    at_most: float | None
    source: str


def estimate_rate(
    shape: ViTShape,
    *,
    batch: int,
    device: Device,
    step: Step,
    utilisation: float | None = None,
    measured: float | None = None,
) -> Rate:
    """Return the rate of one device, the most certain kind that is known.

    Args:
        shape: Dimensions.
        batch: Images per device and step; weights are moved once a step.
        device: The device.
        step: Settings of the step.
        utilisation: Fraction of the peak rate; None: a roofline.
        measured: Images per second, measured.
    """
    work = flops(shape, rematerialize=step.rematerialize, **step.model_options).training
    compute = work / device.peak_flops if device.peak_flops else None
    moved = _seconds_of_memory(shape, batch, device, step)
    bounds = [seconds for seconds in (compute, moved) if seconds]
    at_most = 1 / max(bounds) if len(bounds) == 2 else None
    if measured is not None:
        return Rate(measured, at_most, "measured, as given")
    if compute is None:
        return Rate(None, None, "unknown: the device's peak rate is not known")
    if utilisation is not None or moved is None:
        fraction = UTILISATION if utilisation is None else utilisation
        return Rate(
            fraction / compute,
            at_most,
            f"{fraction:.0%} of the peak rate, an assumption",
        )
    seconds = compute / COMPUTE_FRACTION + moved / BANDWIDTH_FRACTION
    how = (
        "within 21 % of the paper's models there"
        if device.name == "tpu_v3"
        else "not checked on this device"
    )
    return Rate(
        1 / seconds, at_most, f"a roofline fitted to the paper's TPU v3 rates, {how}"
    )


def _seconds_of_memory(
    shape: ViTShape, batch: int, device: Device, step: Step
) -> float | None:
    """Return an image's seconds at full bandwidth; None if that is not known."""
    if not device.bandwidth:
        return None
    step = dataclasses.replace(step, **device.layout, rematerialize="none")
    kept = memory(shape, batch=1, step=step, limit_bytes=math.inf).saved_per_image
    weights = parameters(shape, **step.model_options).total * _MOVED_PER_PARAMETER
    return (_MOVED * kept + weights / batch) / device.bandwidth
