"""Plan a run: does it fit, what does it cost, what should a budget buy (§3.6)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_scaling.modeling.shapes import SHAPES, ViTShape
from vit_scaling.scaling.laws.bootstrap import bootstrap
from vit_scaling.scaling.laws.findings import largest_data
from vit_scaling.scaling.laws.power_law import fit_power_law
from vit_scaling.scaling.laws.predictions import predict
from vit_scaling.scaling.laws.runs import CORE_DAYS, FLOPS, Run, Runs
from vit_scaling.scaling.planning.devices import Device
from vit_scaling.scaling.planning.flops import flops, parameters
from vit_scaling.scaling.planning.memory import Step, memory
from vit_scaling.scaling.planning.shape_laws import scale_shape

# The paper's large models reach 25 to 28 of a TPUv3 core's 61.5 TFLOP/s (Figure 2).
UTILISATION = 0.4


def plan(
    shape: ViTShape,
    *,
    batch: int,
    device: Device,
    step: Step | None = None,
    images: float | None = None,
    devices: int = 1,
    images_per_second: float | None = None,
    utilisation: float = UTILISATION,
    price_per_hour: float | None = None,
) -> dict[str, Any]:
    """Return parameters, operations, memory, and with `images` time and cost.

    Args:
        shape: Dimensions.
        batch: Images per device and step.
        device: From `device_named`.
        step: Head, optimizer, precision and so on; default `Step()`.
        images: Images that training sees, in all.
        devices: Data-parallel replicas.
        images_per_second: Measured on one device; replaces the estimate.
        utilisation: Share of the device's peak that the estimate assumes.
        price_per_hour: Of one device, in any money.

    Raises:
        ValueError: A number is out of range.
    """
    step = dataclasses.replace(step or Step(), tpu=device.tpu)
    _check_positive(devices=devices, utilisation=utilisation)
    _check_given(images_per_second=images_per_second, price_per_hour=price_per_hour)
    count = parameters(shape, **_model(step))
    work = flops(shape, rematerialize=step.rematerialize, **_model(step))
    used = memory(shape, batch=batch, step=step, limit_bytes=device.memory_bytes)
    result: dict[str, Any] = {
        "shape": dataclasses.asdict(shape),
        "head": step.head,
        "optimizer": step.optimizer,
        "batch": batch,
        "image_size": step.image_size,
        "device": device.name,
        "device_source": device.source,
        "parameters": count.encoder,
        "parameters_total": count.total,
        "parameters_by_term": count.terms,
        "gflops_forward": work.encoder / 1e9,
        "gflops_forward_total": work.forward / 1e9,
        "gflops_training": work.training / 1e9,
        "gflops_by_term": {name: value / 1e9 for name, value in work.terms.items()},
        "memory_bytes": {**used.terms, "total": used.total},
        "memory_phase": used.phase,
        "probabilities_recomputed": used.recomputed,
        "device_bytes": device.memory_bytes,
        "fits": used.total <= device.memory_bytes,
        "largest_batch": largest_batch(shape, device=device, step=step),
    }
    rate = images_per_second
    if rate is None and device.peak_flops:
        rate = utilisation * device.peak_flops / work.training
    result["images_per_second"] = rate
    result["throughput_is_measured"] = images_per_second is not None
    if images is not None:
        _check_positive(images=images)
        if rate is None:
            raise ValueError(
                f"The peak rate of {device.name} is not known: give a measured "
                "`images_per_second` (--images_per_second), or a device by name."
            )
        hours = images / rate / 3600
        result["images"] = images
        result["device_hours"] = hours
        result["core_days"] = hours / 24
        result["hours"] = hours / devices
        result["training_flops"] = images * work.training
        result["price"] = None if price_per_hour is None else hours * price_per_hour
    return result


def _model(step: Step) -> dict[str, Any]:
    return {
        "head": step.head,
        "image_size": step.image_size,
        "classes": step.classes,
        "representation_width": step.representation_width,
    }


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"`{name}` must be above 0; received {value!r}.")


def _check_given(**numbers: float | None) -> None:
    given = {name: value for name, value in numbers.items() if value is not None}
    _check_positive(**given)


def largest_batch(shape: ViTShape, *, device: Device, step: Step) -> int:
    """Return the most images per device and step that fit; 0 if one does not."""

    def fits(batch: int) -> bool:
        limit = device.memory_bytes
        return memory(shape, batch=batch, step=step, limit_bytes=limit).total <= limit

    low, high = 0, 1
    while fits(high) and high < 2**20:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def in_flops(runs: Runs, *, image_size: int = 224) -> Runs:
    """Return the runs with training FLOPs as their compute, counted from their shapes.

    Raises:
        ValueError: A run's shape or images seen are not known.
    """
    made = []
    for run in runs:
        if run.shape is None or run.images_seen is None:
            raise ValueError(
                f"FLOPs need the shape and the images seen of every run; {run.model} "
                f"({run.source}) lacks one. Name models as in 'B/16', or give "
                "columns patch, width, depth, mlp_width and heads."
            )
        each = flops(run.shape, head="none", image_size=image_size, classes=None)
        made.append(
            dataclasses.replace(
                run, compute=each.training * run.images_seen, compute_unit=FLOPS
            )
        )
    return Runs(tuple(made))


def plan_budget(
    runs: Runs,
    budget: float,
    *,
    image_size: int = 224,
    resamples: int = 1000,
    device: Device | None = None,
    **rates: Any,
) -> dict[str, Any]:
    """Return what `budget` should buy: shape, data, duration, and the error to expect.

    Along the frontier of `runs` the operations per image of the best model grow as a
    power of compute; at the budget that gives a model size, and with the runs' cost per
    image the images to see. The error comes from the fitted law.
    "data_images" is None where the best runs near the budget do not say how many
    different images they saw.

    Args:
        runs: Runs of one metric with shapes and images seen.
        budget: Compute, in the unit of the runs.
        image_size: Side of the runs' images, in pixels.
        resamples: For the interval.
        device: Where to train; adds what it costs there in core-hours, where a core is
            a replica: half a TPU v2 or v3 chip, or a whole device.
        **rates: Of `plan`: devices, images_per_second, utilisation, price_per_hour.

    Raises:
        ValueError: The budget is not above 0, or the runs lack shapes.
        RuntimeError: The law did not converge.
    """
    _check_positive(budget=budget)
    fit = fit_power_law(runs)
    boot = bootstrap(runs, fit, resamples=resamples)
    told = predict(boot, [budget])[0]
    each = np.log(_per_image(fit.points, image_size))
    slope, offset = np.polyfit(np.log(fit.points.compute), each, 1)
    wanted = float(np.exp(offset + slope * np.log(budget)))
    name, shape = _shape_for(runs, wanted, image_size)
    images = budget / _cost_per_image(runs, shape, image_size)
    near = [run for run in fit.points if 0.1 < run.compute / budget < 10]
    size = largest_data(Runs(tuple(near)) if near else runs)
    data = None if size is None else min(size, images)
    low, high = float(runs.compute.min()), float(runs.compute.max())
    return {
        "budget": budget,
        "compute_unit": runs.compute_unit,
        "shape": name,
        "dimensions": dataclasses.asdict(shape),
        "parameters": parameters(shape, image_size=image_size).encoder,
        "gflops_forward": flops(shape, image_size=image_size).encoder / 1e9,
        "images_seen": images,
        "steps_at_4096": images / 4096,
        "data_images": data,
        "error": told.error,
        "error_interval": told.interval,
        "run_interval": told.run_interval,
        "extrapolated": not low <= budget <= high,
        "law": dataclasses.asdict(fit.law),
        "notes": boot.notes(),
        **(
            _cost(runs, budget, shape, images, device, image_size, rates)
            if device
            else {}
        ),
    }


def _cost(
    runs: Runs,
    budget: float,
    shape: ViTShape,
    images: float,
    device: Device,
    image_size: int,
    rates: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what a budget costs on a device, in core-hours, hours and money."""
    step = Step(image_size=image_size)
    planned = plan(shape, batch=1, device=device, step=step, images=images, **rates)
    hours = planned["device_hours"]
    said = "an estimate from the device's peak rate"
    if planned["throughput_is_measured"]:
        said = "the images per second given"
    elif runs.compute_unit == CORE_DAYS and device.name == "tpu_v3":
        hours, said = 24 * budget, "the core-days of the runs"
    price = rates.get("price_per_hour")
    return {
        "device": device.name,
        "core_hours": hours,
        "hours": hours / rates.get("devices", 1),
        "price": None if price is None else hours * price,
        "hours_from": said,
    }


def _per_image(runs: Runs, image_size: int) -> np.ndarray:
    return np.array([_training(run, image_size) for run in runs])


def _training(run: Run, image_size: int) -> float:
    if run.shape is None or run.images_seen is None:
        raise ValueError(
            "A budget can be planned from runs whose shapes and images seen are known; "
            f"{run.model} ({run.source}) lacks one. Name models as in 'B/16', or give "
            "columns patch, width, depth, mlp_width and heads."
        )
    return flops(run.shape, head="none", image_size=image_size, classes=None).training


def _shape_for(runs: Runs, wanted: float, image_size: int) -> tuple[str, ViTShape]:
    """Return the named shape next to `wanted` FLOPs, or one scaled beyond them."""
    known = {run.model: run.shape for run in runs if run.shape is not None}
    known = {**{n: s for n, s in SHAPES.items() if not n.endswith("/16")}, **known}

    def cost(shape: ViTShape) -> float:
        return flops(shape, head="none", image_size=image_size, classes=None).training

    name = min(known, key=lambda item: abs(math.log(cost(known[item]) / wanted)))
    shape = known[name]
    if 0.4 < wanted / cost(shape) < 2.5:
        return name, shape
    # FLOPs per image grow by about factor^((.22 + .45 + .6)/3) under the shape laws.
    grown = scale_shape(shape, (wanted / cost(shape)) ** (3 / 1.27))
    return f"{name}, scaled by the shape laws", grown


def _cost_per_image(runs: Runs, shape: ViTShape, image_size: int) -> float:
    """Return compute per image: of the runs of this shape, else along their trend."""
    own = [r.compute / (r.images_seen or 1) for r in runs if r.shape == shape]
    if own:
        return float(np.median(own))
    work = flops(shape, head="none", image_size=image_size, classes=None).training
    if runs.compute_unit != CORE_DAYS:
        return work
    size = np.log(_per_image(runs, image_size))
    each = np.log([run.compute / (run.images_seen or 1) for run in runs])
    slope, offset = np.polyfit(size, each, 1)
    return float(np.exp(offset + slope * math.log(work)))
