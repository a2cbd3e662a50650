"""Interpret a compiler's result: does the step fit, and how fast can it be."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from typing import Any

from vit_scaling.preflight import program
from vit_scaling.preflight.collectives import compute_exchange_seconds
from vit_scaling.scaling.planning.devices import Device

SCALING_REPLICAS = (8, 32, 128, 512, 2048)

NOTE = (
    "Compiled for all replicas, with their exchange of gradients. Rates are bounds: "
    "peak rates, and no latency of the interconnect."
)
GPU_NOTE = (
    f"{NOTE} XLA's own program, without autotuning; TensorFlow's allocator and "
    "libraries need some memory more."
)
_SIZES = ("argument_bytes", "temp_bytes", "output_bytes", "alias_bytes", "code_bytes")
_COUNTS = ("flops", "transcendentals", "bytes_accessed")


def compute_roofline(
    device: Device,
    *,
    flops: float,
    bytes_accessed: float,
    batch: int,
    collectives: Mapping[str, Any] | None = None,
    replicas: int = 1,
) -> dict[str, Any]:
    """Return the lower bound of a step's time from operations, bytes and exchange.

    Peak rate and bandwidths are the published ones. No program reaches them, so the
    time is a bound, not a prediction. The part of the exchange that the compiler did
    not schedule next to other work adds to the time.

    Args:
        device: The device, with its peak rate and bandwidths.
        flops: Operations of a step.
        bytes_accessed: Bytes of a step to and from memory, as the compiler counts.
        batch: Images of a step on one device.
        collectives: From `find_collectives`; None if nothing is exchanged.
        replicas: Number of replicas.

    Raises:
        ValueError: The device's peak rate or bandwidth is not known.
    """
    if device.peak_flops is None or device.bandwidth is None:
        raise ValueError(f"The peak rate or bandwidth of {device.name} is not known.")
    compute, memory = flops / device.peak_flops, bytes_accessed / device.bandwidth
    seconds = max(compute, memory)
    exchange = 0.0
    if collectives is not None and collectives["bytes"]:
        exchange = compute_exchange_seconds(collectives, device, replicas)
        alone = 1.0 - collectives["overlapped_bytes"] / collectives["bytes"]
        seconds = max(seconds + alone * exchange, exchange)
    return {
        "seconds_at_least": seconds,
        "images_per_second_at_most": batch / seconds,
        "bound_by": "compute" if compute >= memory else "memory",
        "compute_seconds": compute,
        "memory_seconds": memory,
        "exchange_seconds": exchange,
        "peak_flops_per_second": device.peak_flops,
        "bandwidth_bytes_per_second": device.bandwidth,
        "interconnect_bytes_per_second": device.interconnect,
        "source": f"{device.source} per chip of {device.cores} replica(s)",
    }


def compute_scaling(device: Device, **step: Any) -> list[dict[str, Any]]:
    """Return the roofline's rate at 8 to 2,048 replicas, and the rate relative to 8.

    Args:
        device: The device. Larger slices than its pod are left out.
        **step: Other arguments of `compute_roofline` than the replicas.
    """
    rows: list[dict[str, Any]] = []
    for replicas in SCALING_REPLICAS:
        if device.pod_chips is None or replicas > device.pod_chips * device.cores:
            break
        bound = compute_roofline(device, **step, replicas=replicas)
        rate = bound["images_per_second_at_most"]
        base = rows[0]["images_per_second_at_most"] if rows else rate
        rows.append(
            {
                "replicas": replicas,
                "exchange_seconds": bound["exchange_seconds"],
                "images_per_second_at_most": rate,
                "efficiency": rate / base,
            }
        )
    return rows


def make_report(
    result: Mapping[str, Any], text: str, *, device: Device, batch: int
) -> dict[str, Any]:
    """Report on a compiled program: sizes, costs, and whether it fits.

    Args:
        result: From `compiler.Compiler.compile`.
        text: The program.
        device: The device that it was compiled for.
        batch: Images of a step on one device.

    Returns:
        {"fits", "total_bytes", "limit_bytes", "headroom_bytes", …}; "fits" is None
        if the program cannot be compiled for another reason than its size, given by
        "unsupported_operations" or "error". Unknown values are None.
    """
    report = {**make_empty_report(device), "error": result.get("error")}
    if "error" not in result:
        report.update({key: result[key] for key in (*_SIZES, *_COUNTS)})
        total = result["argument_bytes"] + result["temp_bytes"]
        # An output that overwrites its argument takes no memory of its own.
        total += result["output_bytes"] - result["alias_bytes"]
        # The TPU compiler rejects a program that does not fit; the GPU's does not.
        fits = device.tpu or total <= device.memory_bytes
        report.update(fits=fits, total_bytes=total)
        keys = ("flops", "bytes_accessed", "collectives")
        step = {"batch": batch, **{key: result[key] for key in keys}}
        replicas = result["replicas"]
        report["collectives"] = result["collectives"]
        report["roofline"] = compute_roofline(device, **step, replicas=replicas)
        report["scaling"] = compute_scaling(device, **step)
    else:
        report["argument_bytes"] = program.count_argument_bytes(text)
        sizes = program.parse_memory_error(result["error"])
        if sizes is not None:
            report.update(fits=False, total_bytes=sizes[0], limit_bytes=sizes[1])
        elif program.is_out_of_memory(result["error"]):
            report["fits"] = False
        else:
            report["unsupported_operations"] = program.find_unsupported_calls(text)
    if report["total_bytes"] is not None:
        report["headroom_bytes"] = report["limit_bytes"] - report["total_bytes"]
    return report


def make_empty_report(device: Device) -> dict[str, Any]:
    """Return a report on a step of which only the device is known."""
    sizes = ("total_bytes", "headroom_bytes", *_SIZES)
    unknown = (*sizes, *_COUNTS, "collectives", "roofline", "scaling", "error")
    return {
        "fits": None,
        "limit_bytes": device.memory_bytes,
        "unsupported_operations": [],
        **dict.fromkeys(unknown),
    }


def format_report(report: Mapping[str, Any]) -> str:
    """Format a report as text: whether the step fits, then sizes and costs."""
    lines = [_summarize(report)]
    lines += [
        f"  {key.removesuffix('_bytes'):12} {report[key] / 2**30:9.3f} GiB"
        for key in ("argument_bytes", "temp_bytes", "output_bytes", "alias_bytes")
        if report[key] is not None
    ]
    bound = report["roofline"]
    if bound is not None:
        lines += [
            f"  {'operations':12} {report['flops']:9.3e}",
            f"  {'bytes moved':12} {report['bytes_accessed']:9.3e}",
            f"At {bound['peak_flops_per_second']:.4g} operations and "
            f"{bound['bandwidth_bytes_per_second']:.4g} bytes per second "
            f"({bound['source']}) a step takes at least "
            f"{bound['seconds_at_least']:.4g} s, bound by {bound['bound_by']}.",
        ]
    return "\n".join([*lines, *_describe_exchange(report), report["note"]])


def _describe_exchange(report: Mapping[str, Any]) -> list[str]:
    found, bound = report["collectives"], report["roofline"]
    if not found or not found["count"]:
        return []
    dtypes = ", ".join(
        f"{size / 2**30:.3f} GiB in {dtype}"
        for dtype, size in found["bytes_by_dtype"].items()
    )
    lines = [
        f"{report['replicas']} replicas exchange {found['arrays']} arrays in "
        f"{found['count']} collectives ({dtypes}), "
        f"{found['overlapped_bytes'] / found['bytes']:.0%} of the bytes next to other "
        f"work. This takes at least {bound['exchange_seconds']:.4g} s."
    ]
    for row in report["scaling"][-1:]:
        lines.append(
            f"On {row['replicas']} replicas at most "
            f"{row['images_per_second_at_most']:.4g} images per second and replica, "
            f"{row['efficiency']:.1%} of the rate on {SCALING_REPLICAS[0]}."
        )
    return lines


def _summarize(report: Mapping[str, Any]) -> str:
    start = f"{report['per_core_batch']} images per core on {report['device']}"
    if report["fits"] is None:
        return f"{start}: cannot be compiled. {report['error']}"
    word = "fit" if report["fits"] else "do NOT fit"
    if report["total_bytes"] is None:
        return f"{start} {word}: {report['error']}"
    total, limit = report["total_bytes"] / 2**30, report["limit_bytes"] / 2**30
    return f"{start} {word}: {total:.2f} of {limit:.2f} GiB ({limit - total:+.2f})."
