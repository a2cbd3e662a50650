"""Which state an optimizer keeps for a weight, and what it costs; no TensorFlow (§3.4).

The optimizers build their variables from `adam_slots`, `adafactor_slots` and
`momentum_slots`, so what is counted here is what is allocated there.
"""
# SPDX-License-Identifier: Apache-2.0

from typing import NamedTuple, TypeAlias

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}

Shape: TypeAlias = tuple[int, ...]


class Slot(NamedTuple):
    """One array that an optimizer keeps for a weight."""

    shape: Shape
    dtype: str


Slots: TypeAlias = dict[str, Slot]


def adam_slots(
    shape: Shape,
    *,
    first_moment_dtype: str = "float32",
    second_moment_dtype: str = "float32",
) -> Slots:
    """Return Adam's state for a weight of `shape`."""
    return {
        "first_moment": Slot(shape, first_moment_dtype),
        "second_moment": Slot(shape, second_moment_dtype),
    }


def checked_dtype(name: str, dtype: str) -> str:
    """Return `dtype`.

    Raises:
        ValueError: It is not one that state may have.
    """
    if dtype not in BYTES:
        raise ValueError(
            f"`{name}` must be one of {', '.join(BYTES)}; received {dtype!r}."
        )
    return dtype
