"""What the compiler's answer means for a run: does it fit, and how fast at best."""
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


def device_of(topology: str) -> Device:
    """Return what one replica of a topology such as "v3:2x2" runs on.

    Raises:
        ValueError: The topology has no version, or an unknown one.
    """
    version, colon, sizes = str(topology).partition(":")
    known = {name.removeprefix("tpu_"): d for name, d in DEVICES.items() if d.tpu}
    if version not in known or not colon or not sizes:
        raise ValueError(
            f"`topology` must be VERSION:SIZES, such as v3:2x2, with a version of "
            f"{', '.join(known)}; received {topology!r}."
        )
    return known[version]


def roofline(
    device: Device, *, flops: float, bytes_accessed: float, batch: int
) -> dict[str, Any]:
    """Return the least time of a step: that of its operations or that of its bytes.

    Peak rate and bandwidth are the published ones; no program reaches both, so that the
    time is a bound, not a forecast.

    Args:
        device: With its peak rate and bandwidth.
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


def verdict(
    answer: Mapping[str, Any], text: str, *, device: Device, batch: int
) -> dict[str, Any]:
    """Return what a compiler's answer says: sizes, counts, and whether it fits.

    Args:
        answer: What `compiler.TpuCompiler.answer` returned.
        text: The program.
        device: What it was compiled for.
        batch: Images of a step on one device.

    Returns:
        {"fits", "total_bytes", "limit_bytes", "headroom_bytes", …}; "fits" is None
        where the program cannot be compiled for another reason than its size, which
        "unsupported_operations" or "error" then tell. What is not known is None.
    """
    result = {**_unknown(device), "error": answer.get("error")}
    if "error" not in answer:
        result.update({key: answer[key] for key in (*_SIZES, *_COUNTS)})
        total = answer["argument_bytes"] + answer["temp_bytes"]
        # An output that overwrites its argument takes no room of its own.
        total += answer["output_bytes"] - answer["alias_bytes"]
        result.update(fits=True, total_bytes=total)
        result["roofline"] = roofline(
            device,
            flops=answer["flops"],
            bytes_accessed=answer["bytes_accessed"],
            batch=batch,
        )
    else:
        result["argument_bytes"] = program.argument_bytes(text)
        sizes = program.needed(answer["error"])
        if sizes is not None:
            result.update(fits=False, total_bytes=sizes["used_bytes"])
            result["limit_bytes"] = sizes["limit_bytes"]
        elif program.lacks_hbm(answer["error"]):
            result["fits"] = False
        else:
            result["unsupported_operations"] = program.foreign_calls(text)
    if result["total_bytes"] is not None:
        result["headroom_bytes"] = result["limit_bytes"] - result["total_bytes"]
    return result


def refused(error: program.UnsupportedError, device: Device) -> dict[str, Any]:
    """Return the verdict on a step that XLA itself refuses."""
    return {
        **_unknown(device),
        "unsupported_operations": error.operations,
        "error": str(error),
    }


def _unknown(device: Device) -> dict[str, Any]:
    return {
        "fits": None,
        "total_bytes": None,
        "limit_bytes": device.memory_bytes,
        "headroom_bytes": None,
        **dict.fromkeys([*_SIZES, *_COUNTS]),
        "roofline": None,
        "unsupported_operations": [],
        "error": None,
    }


def as_text(result: Mapping[str, Any]) -> str:
    """Return a verdict for people: an answer in a sentence, then figures."""
    lines = [_sentence(result)]
    lines += [
        f"  {key.removesuffix('_bytes'):12} {result[key] / 2**30:9.3f} GiB"
        for key in ("argument_bytes", "temp_bytes", "output_bytes", "alias_bytes")
        if result[key] is not None
    ]
    best = result["roofline"]
    if best is not None:
        lines += [
            f"  {'operations':12} {result['flops']:9.3e}",
            f"  {'bytes moved':12} {result['bytes_accessed']:9.3e}",
            f"At {best['peak_flops_per_second']:.4g} operations and "
            f"{best['bandwidth_bytes_per_second']:.4g} bytes per second "
            f"({best['source']}) a step takes at least "
            f"{best['seconds_at_least']:.4g} s, bound by {best['bound_by']}.",
        ]
    bound = result["all_reduce_bytes"] / 2**30
    return "\n".join([*lines, f"{result['note']} Here: {bound:.3f} GiB."])


def _sentence(result: Mapping[str, Any]) -> str:
    batch, name = result["per_core_batch"], result["device"]
    start = f"{batch} images per core on {name}"
    if result["fits"] is None:
        return f"{start}: cannot be compiled. {result['error']}"
    word = "fit" if result["fits"] else "do NOT fit"
    if result["total_bytes"] is None:
        return f"{start} {word}: {result['error']}"
    total, limit = result["total_bytes"] / 2**30, result["limit_bytes"] / 2**30
    return f"{start} {word}: {total:.2f} of {limit:.2f} GiB ({limit - total:+.2f})."
