"""Plans a run: memory, time and cost, or the best use of a compute budget (§3.6)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
from typing import Any

import numpy as np

from vit_scaling.modeling.shapes import SHAPES, ViTShape
from vit_scaling.scaling.laws.compute_units import (
    FLOPS,
    ComputeUnit,
    find_unit,
    parse_unit,
)
from vit_scaling.scaling.laws.findings import largest_data
from vit_scaling.scaling.laws.frontier import frontier
from vit_scaling.scaling.laws.law_estimates import LawOptions, estimate_law
from vit_scaling.scaling.laws.predictions import predict
from vit_scaling.scaling.laws.runs import Floats, Run, Runs
from vit_scaling.scaling.planning.advice import find_nearest_fit, largest_batch
from vit_scaling.scaling.planning.devices import Device
from vit_scaling.scaling.planning.flops import flops, parameters
from vit_scaling.scaling.planning.memory import memory
from vit_scaling.scaling.planning.shape_laws import scale_shape
from vit_scaling.scaling.planning.step import Step
from vit_scaling.scaling.planning.throughput import estimate_rate


def plan(
    shape: ViTShape,
    *,
    batch: int,
    device: Device,
    step: Step | None = None,
    images: float | None = None,
    devices: int = 1,
    images_per_second: float | None = None,
    utilisation: float | None = None,
    price_per_hour: float | None = None,
) -> dict[str, Any]:
    """Return parameters, FLOPs and memory of a run; given `images`, time and cost.

    Args:
        shape: Dimensions.
        batch: Images per device and step.
        device: From `device_named`.
        step: Head, optimizer, precision and so on; default `Step()`.
        images: Images seen in training, in total.
        devices: Data-parallel replicas.
        images_per_second: Measured rate of one device; replaces the estimate.
        utilisation: Fraction of the device's peak rate to assume; None: a roofline of
            its peak rate and bandwidth, see `estimate_rate`.
        price_per_hour: Price of one device, in any currency.

    Raises:
        ValueError: A number is out of range.
    """
    step = dataclasses.replace(step or Step(), **device.layout)
    _check_positive(
        devices=devices,
        utilisation=utilisation,
        images=images,
        images_per_second=images_per_second,
        price_per_hour=price_per_hour,
    )
    count = parameters(shape, **step.model_options)
    work = flops(shape, rematerialize=step.rematerialize, **step.model_options)
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
        "nearest_fit": None,
    }
    if not result["fits"]:
        result["nearest_fit"] = find_nearest_fit(
            shape, batch=batch, device=device, step=step
        )
    rate = estimate_rate(
        shape,
        batch=batch,
        device=device,
        step=step,
        utilisation=utilisation,
        measured=images_per_second,
    )
    result["images_per_second"] = rate.images_per_second
    result["images_per_second_at_most"] = rate.at_most
    result["images_per_second_from"] = rate.source
    result["throughput_is_measured"] = images_per_second is not None
    if images is not None:
        cost = _cost(images, device, rate.images_per_second, devices, price_per_hour)
        result |= {**cost, "training_flops": images * work.training}
    return result


def _cost(
    images: float,
    device: Device,
    images_per_second: float | None,
    devices: int,
    price_per_hour: float | None,
) -> dict[str, Any]:
    """Return the time, compute and price of training on a number of images."""
    if images_per_second is None:
        raise ValueError(
            f"The peak rate of {device.name} is not known. Give a measured "
            "`images_per_second` (--images_per_second), or a device by name."
        )
    hours = images / images_per_second / 3600
    return {
        "images": images,
        "device_hours": hours,
        "compute": {
            "number": hours / 24,
            "unit": device_days_of(device).name,
            "device": device.name,
        },
        "hours": hours / devices,
        "price": None if price_per_hour is None else hours * price_per_hour,
    }


def device_days_of(device: Device) -> ComputeUnit:
    """Return the unit of a day of one replica of the device."""
    replica = "core_days" if device.cores > 1 else "days"
    unit = find_unit(f"{device.name}_{replica}")
    return unit or parse_unit("device_days")  # Of a device known by its memory only.


def _check_positive(**numbers: float | None) -> None:
    for name, value in numbers.items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"`{name}` must be above 0; received {value!r}.")


def convert_to_flops(runs: Runs, *, image_size: int = 224) -> Runs:
    """Return the runs with training FLOPs as their compute, counted from their shapes.

    Raises:
        ValueError: A run's shape or images seen are not known.
    """
    return Runs(
        tuple(
            dataclasses.replace(
                run,
                compute=_flops_per_image(run, image_size) * (run.images_seen or 0),
                compute_unit=FLOPS,
            )
            for run in runs
        )
    )


def convert_to_device_days(
    runs: Runs, device: Device, *, image_size: int = 224
) -> Runs:
    """Return the runs with days of one replica of `device` as their compute.

    The days are the images seen over the estimated rate of each run's shape.

    Raises:
        ValueError: A run's shape or images seen are not known, or the device's rate.
    """
    step, unit = Step(image_size=image_size, **device.layout), device_days_of(device)
    rates: dict[ViTShape, float] = {}
    rows = []
    for run in runs:
        _flops_per_image(run, image_size)  # Raises without a shape.
        shape = run.shape
        if shape is not None and shape not in rates:
            most = largest_batch(shape, device=device, step=step)
            batch = max(1, min(64, most))
            rate = estimate_rate(shape, batch=batch, device=device, step=step)
            if rate.images_per_second is None:
                raise ValueError(f"The peak rate of {device.name} is not known.")
            rates[shape] = rate.images_per_second
        days = (run.images_seen or 0) / rates[shape or next(iter(rates))] / 86400
        rows.append(dataclasses.replace(run, compute=days, compute_unit=unit.name))
    return Runs(tuple(rows))


def plan_budget(
    runs: Runs,
    budget: float,
    *,
    image_size: int = 224,
    resamples: int = 1000,
    device: Device | None = None,
    **rates: Any,
) -> dict[str, Any]:
    """Return the best use of `budget`: shape, data, duration and the expected error.

    Along the frontier of `runs` the FLOPs per image of the best model grow as a power
    of compute. At the budget this gives the model's size and, with the runs' cost per
    image, the number of images to see. The error comes from the fitted law.
    "data_images" is None if the size of the data set is not known for the best runs
    near the budget.

    Args:
        runs: Runs of one metric with shapes and images seen.
        budget: Compute, in the unit of the runs.
        image_size: Side of the runs' images, in pixels.
        resamples: Number of bootstrap resamples for the interval.
        device: Device to train on; adds the cost there in core-hours, where a core is
            a replica: half a TPU v2 or v3 chip, or a whole device.
        **rates: Arguments of `plan`: devices, images_per_second, utilisation,
            price_per_hour.

    Raises:
        ValueError: The budget is not above 0, or the runs lack shapes.
        RuntimeError: The law did not converge.
    """
    _check_positive(budget=budget)
    law = estimate_law(runs, LawOptions(resamples=resamples))
    prediction = predict(law.bootstrap or law.fit.law, [budget])[0]
    best = frontier(runs.averaged_over_seeds())
    best_flops = [_flops_per_image(run, image_size) for run in best]
    wanted = _extrapolate(best.compute, best_flops, budget)
    name, shape = _find_shape(runs, wanted, image_size)
    images = budget / _compute_per_image(runs, shape, image_size)
    near = [run for run in best if 0.1 < run.compute / budget < 10]
    size = largest_data(Runs(tuple(near)) if near else runs)
    data = None if size is None else min(size, images)
    low, high = float(runs.compute.min()), float(runs.compute.max())
    result = {
        "budget": budget,
        "compute_unit": runs.compute_unit,
        "shape": name,
        "dimensions": dataclasses.asdict(shape),
        "parameters": parameters(shape, image_size=image_size).encoder,
        "gflops_forward": flops(shape, image_size=image_size).encoder / 1e9,
        "images_seen": images,
        "steps_at_4096": images / 4096,
        "data_images": data,
        "error": prediction.error,
        "error_interval": prediction.interval,
        "run_interval": prediction.run_interval,
        "extrapolated": not low <= budget <= high,
        "law": dataclasses.asdict(law.fit.law),
        "notes": [*(law.bootstrap.notes() if law.bootstrap else []), *law.notes],
    }
    if device is None:
        return result
    step = Step(image_size=image_size, **device.layout)
    batch = max(1, min(64, largest_batch(shape, device=device, step=step)))
    run = plan(shape, batch=batch, device=device, step=step, images=images, **rates)
    hours = run["device_hours"]
    hours_from = f"the rate, {run['images_per_second_from']}"
    if not run["throughput_is_measured"] and (
        runs.unit.quantity == device_days_of(device).quantity
    ):
        hours, hours_from = (
            24 * budget * runs.unit.factor,
            f"the {runs.unit.label} of the runs",
        )
    price = rates.get("price_per_hour")
    return {
        **result,
        "device": device.name,
        "core_hours": hours,
        "hours": hours / rates.get("devices", 1),
        "price": None if price is None else hours * price,
        "hours_from": hours_from,
    }


def _flops_per_image(run: Run, image_size: int) -> float:
    if run.shape is None or run.images_seen is None:
        raise ValueError(
            "Planning needs the shape and the images seen of every run; "
            f"{run.model} ({run.source}) lacks one. Name models as in 'B/16', or give "
            "columns patch, width, depth, mlp_width and heads."
        )
    return _training_flops(run.shape, image_size)


def _training_flops(shape: ViTShape, image_size: int) -> float:
    """Return the training FLOPs of the encoder on one image."""
    return flops(shape, head="none", image_size=image_size, classes=None).training


def _extrapolate(x: Floats | list[float], y: list[float], new_x: float) -> float:
    """Return y at `new_x` on the power law fitted to x and y."""
    slope, offset = np.polyfit(np.log(x), np.log(y), 1)
    return float(np.exp(offset + slope * np.log(new_x)))


def _find_shape(runs: Runs, wanted: float, image_size: int) -> tuple[str, ViTShape]:
    """Return the named shape nearest to `wanted` FLOPs, or one scaled to them."""
    shapes = {name: s for name, s in SHAPES.items() if not name.endswith("/16")}
    shapes |= {run.model: run.shape for run in runs if run.shape is not None}
    ratios = {n: wanted / _training_flops(s, image_size) for n, s in shapes.items()}
    name = min(ratios, key=lambda name: abs(math.log(ratios[name])))
    if 0.4 < ratios[name] < 2.5:
        return name, shapes[name]
    # FLOPs per image grow by about factor^((.22 + .45 + .6)/3) under the shape laws.
    scaled = scale_shape(shapes[name], ratios[name] ** (3 / 1.27))
    return f"{name}, scaled by the shape laws", scaled


def _compute_per_image(runs: Runs, shape: ViTShape, image_size: int) -> float:
    """Return the median compute of runs of this shape, or that of the runs' trend."""
    per_image = [run.compute / (run.images_seen or 1) for run in runs]
    same_shape = [
        c for c, run in zip(per_image, runs, strict=True) if run.shape == shape
    ]
    if same_shape:
        return float(np.median(same_shape))
    work = _training_flops(shape, image_size)
    if runs.unit.quantity == "FLOPs":
        return work / runs.unit.factor
    size = [_flops_per_image(run, image_size) for run in runs]
    return _extrapolate(size, per_image, work)
