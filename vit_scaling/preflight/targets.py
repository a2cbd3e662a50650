"""What a step is compiled for: a number of devices, and the compiler for them."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from vit_scaling.preflight import gpu_worker
from vit_scaling.preflight.environment import GPU, TPU, Toolchain
from vit_scaling.scaling.planning.devices import DEVICES, Device, normalized
from vit_scaling.training.strategy import tpu_compiler_options


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to compile for.

    Attributes:
        topology: As the compiler names it, such as "v3:4x4" or "h100x8".
        device: The device of one replica: its memory, peak rate and bandwidths.
        toolchain: The compiler.
        options: Options of the compiler that a run sets too.
    """

    topology: str
    device: Device
    toolchain: Toolchain
    options: Mapping[str, Any]


def find_target(topology: str) -> Target:
    """Return the target of a topology such as "v3:4x4", "h100" or "h100x8".

    Raises:
        ValueError: The topology has no version or an unknown one.
    """
    gpu = normalized(str(topology))
    match = re.fullmatch(rf"({'|'.join(gpu_worker.GPUS)})(x\d+)?", gpu)
    if match is not None:
        return Target(gpu, DEVICES[match[1]], GPU, {})
    version, colon, sizes = str(topology).partition(":")
    known = {name.removeprefix("tpu_"): d for name, d in DEVICES.items() if d.tpu}
    if version not in known or not colon or not sizes:
        raise ValueError(
            f"`topology` must be VERSION:SIZES, such as v3:2x2, with a version of "
            f"{', '.join(known)}, or a GPU of {', '.join(gpu_worker.GPUS)}, such as "
            f"h100 or h100x8; received {topology!r}."
        )
    return Target(topology, known[version], TPU, tpu_compiler_options())
