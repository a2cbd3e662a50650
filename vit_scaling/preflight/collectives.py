"""Find the communication in a compiled program, and bound the time that it takes."""
# SPDX-License-Identifier: Apache-2.0

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from vit_scaling.preflight.program import count_tensor_bytes
from vit_scaling.scaling.planning.devices import Device

_KINDS = "all-reduce|reduce-scatter|all-gather|all-to-all|collective-permute"
# "%name = TYPE all-reduce-start(%operand", where TYPE may be a tuple of many arrays.
_COLLECTIVE = re.compile(rf"(%\S+) = (.*) ({_KINDS})(-start|-done)?\((%[^,)\s]*)")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]")
# Instructions that do work; others rename or unpack values.
_WORK = re.compile(r" (?:fusion|convolution|dot|custom-call|while|reduce|sort)\(")
# Bytes that a chip sends for each byte of the array, if there are many chips.
_SENDS = {"all-reduce": 2.0}


def find_collectives(text: str) -> dict[str, Any]:
    """Return the collectives of a compiled program, as the compiler scheduled it.

    Args:
        text: The optimized HLO, whose instructions are in the order of execution.

    Returns:
        "count", "arrays" (how many they exchange), "bytes", "bytes_by_dtype",
        "count_by_kind", "bytes_by_kind", and "overlapped_bytes": bytes of those that
        run while other work does. Bytes are those of one replica's arrays, unpadded.
    """
    found: Counter[str] = Counter(count=0, arrays=0, bytes=0, overlapped_bytes=0)
    dtypes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for kind, shape, is_overlapped in _read_collectives(text):
        arrays = _ARRAY.findall(shape)
        size = 0
        for dtype, sides in arrays:
            array = count_tensor_bytes(sides.replace(",", "x"), dtype)
            dtypes[dtype] += array
            size += array
        counts[kind] += 1
        kinds[kind] += size
        found["count"] += 1
        found["arrays"] += len(arrays)
        found["bytes"] += size
        found["overlapped_bytes"] += size * is_overlapped
    return {
        **found,
        "bytes_by_dtype": dict(dtypes),
        "count_by_kind": dict(counts),
        "bytes_by_kind": dict(kinds),
    }


def _read_collectives(text: str) -> Iterator[tuple[str, str, bool]]:
    """Yield the kind, the result's type, and whether work runs at the same time."""
    pending: dict[str, int] = {}  # Collectives that started: work seen before each.
    computation, work = "", 0
    for line in text.splitlines():
        if line.endswith("{") and line.startswith(("%", "ENTRY ")):
            computation = line.partition(" (")[0]
        match = _COLLECTIVE.search(line)
        if match is None:
            work += _WORK.search(line) is not None
            continue
        name, shape, kind, phase, operand = match.groups()
        if phase == "-start":
            pending[name] = work
            continue
        if "reduce-scatter" in computation:  # A fusion: each replica keeps its part.
            kind = "reduce-scatter"
        yield kind, shape, phase == "-done" and work > pending.pop(operand)


def compute_exchange_seconds(
    collectives: Mapping[str, Any], device: Device, replicas: int
) -> float:
    """Return the least time that a chip's links need for all collectives.

    A chip sends at least 2 · (n - 1) / n times the bytes of an all-reduce over n chips,
    and half of that for a reduce-scatter or an all-gather (Patarasuk and Yuan, 2009).
    The cores of one chip share its links, and add up their gradients before.

    Args:
        collectives: From `find_collectives`.
        device: The device, with the rate of its chip's links.
        replicas: Number of replicas, on as many devices.
    """
    chips = -(-replicas // device.cores)
    if chips == 1 or device.interconnect is None:
        return 0.0
    sent = sum(
        _SENDS.get(kind, 1.0) * size
        for kind, size in collectives["bytes_by_kind"].items()
    )
    return sent * (chips - 1) / chips / device.interconnect
