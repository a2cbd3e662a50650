"""Interpret a compiler's result: does the step fit, and how fast can it be."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from typing import Any

from vit_scaling.preflight import program
from vit_scaling.scaling.planning.devices import DEVICES, Device

NOTE = (
    "The program is one replica's, without the all-reduce of gradients. "
    "`all_reduce_bytes` bounds what that may add: every gradient once, in the weights' "
    "dtype."
)
_SIZES = ("argument_bytes", "temp_bytes", "output_bytes", "alias_bytes", "code_bytes")
_COUNTS = ("flops", "transcendentals", "bytes_accessed")


def find_device(topology: str) -> Device:
    """Return the device that one replica of a topology such as "v3:2x2" runs on.

    Raises:
        ValueError: The topology has no version or an unknown one.
    """
    version, colon, sizes = str(topology).partition(":")
    known = {name.removeprefix("tpu_"): d for name, d in DEVICES.items() if d.tpu}
    if version not in known or not colon or not sizes:
        raise ValueError(
            f"`topology` must be VERSION:SIZES, such as v3:2x2, with a version of "
            f"{', '.join(known)}; received {topology!r}."
        )
    return known[version]


def compute_roofline(
    device: Device, *, flops: float, bytes_accessed: float, batch: int
) -> dict[str, Any]:
    """Return the lower bound of a step's time, from its operations and its bytes.

    Peak rate and bandwidth are the published ones. No program reaches both, so the time
    is a bound, not a prediction.

    Args:
        device: The device, with its peak rate and bandwidth.
        flops: Operations of a step.
        bytes_accessed: Bytes of a step to and from memory, as the compiler counts.
        batch: Images of a step on one device.

    Raises:
        ValueError: The device's peak rate or bandwidth is not known.
    """
    if device.peak_flops is None or device.bandwidth is None:
        raise ValueError(f"The peak rate or bandwidth of {device.name} is not known.")
    compute, memory = flops / device.peak_flops, bytes_accessed / device.bandwidth
    seconds = max(compute, memory)
    return {
        "seconds_at_least": seconds,
        "images_per_second_at_most": batch / seconds,
        "bound_by": "compute" if compute >= memory else "memory",
        "compute_seconds": compute,
        "memory_seconds": memory,
        "peak_flops_per_second": device.peak_flops,
        "bandwidth_bytes_per_second": device.bandwidth,
        "source": f"{device.source} per chip of {device.cores} replica(s)",
    }


def make_report(
    result: Mapping[str, Any], text: str, *, device: Device, batch: int
) -> dict[str, Any]:
    """Report on a compiled program: sizes, costs, and whether it fits.

    Args:
        result: From `compiler.TpuCompiler.compile`.
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
        report.update(fits=True, total_bytes=total)
        costs = {key: result[key] for key in ("flops", "bytes_accessed")}
        report["roofline"] = compute_roofline(device, batch=batch, **costs)
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
    unknown = ("total_bytes", "headroom_bytes", *_SIZES, *_COUNTS, "roofline", "error")
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
    gradients = report["all_reduce_bytes"] / 2**30
    return "\n".join([*lines, f"{report['note']} Here: {gradients:.3f} GiB."])


def _summarize(report: Mapping[str, Any]) -> str:
    start = f"{report['per_core_batch']} images per core on {report['device']}"
    if report["fits"] is None:
        return f"{start}: cannot be compiled. {report['error']}"
    word = "fit" if report["fits"] else "do NOT fit"
    if report["total_bytes"] is None:
        return f"{start} {word}: {report['error']}"
    total, limit = report["total_bytes"] / 2**30, report["limit_bytes"] / 2**30
    return f"{start} {word}: {total:.2f} of {limit:.2f} GiB ({limit - total:+.2f})."
