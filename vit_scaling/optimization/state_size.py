"""Which state an optimizer keeps for a weight, and what it costs; no TensorFlow (§3.4).

The optimizers build their variables from `adam_slots`, `adafactor_slots` and
`momentum_slots`, so what is counted here is what is allocated there.
"""
# SPDX-License-Identifier: Apache-2.0

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from vit_scaling.optimization.weight_decay import value_for

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


def adafactor_slots(
    shape: Shape,
    *,
    first_moment_dtype: str | None = "bfloat16",
    second_moment_dtype: str = "float32",
    least_factored: int | None = 32,
) -> Slots:
    """Return Adafactor's state; None stands for no first moment, and no factoring."""
    slots = {}
    if first_moment_dtype is not None:
        slots["first_moment"] = Slot(shape, first_moment_dtype)
    axes = None if least_factored is None else factored_axes(shape, least_factored)
    if axes is None:
        return {**slots, "second_moment": Slot(shape, second_moment_dtype)}
    second, largest = axes
    return {
        **slots,
        "second_moment_row": Slot(_without(shape, largest), second_moment_dtype),
        "second_moment_column": Slot(_without(shape, second), second_moment_dtype),
    }


def momentum_slots(shape: Shape, *, first_moment_dtype: str = "float32") -> Slots:
    """Return the state of SGD with momentum for a weight of `shape`."""
    return {"first_moment": Slot(shape, first_moment_dtype)}


def factored_axes(shape: Shape, least: int) -> tuple[int, int] | None:
    """Return (second largest axis, largest axis), or None if they are not factored.

    Axes are sorted by size; of equal ones the later counts as larger. So the query
    kernel (width, heads, head width) is factored per head, and a patch embedding of
    14 x 14 x 3 x width not at all.

    Args:
        shape: The weight's shape.
        least: Least size of the second largest axis.
    """
    if len(shape) < 2:
        return None
    *_, second, largest = sorted(range(len(shape)), key=lambda axis: shape[axis])
    return (second, largest) if shape[second] >= least else None


# The optimizers of §3.4, with those for fine-tuning, in their usual settings.
OPTIMIZERS: dict[str, Callable[[Shape], Slots]] = {
    "Adam": adam_slots,
    "Adam-HP": functools.partial(adam_slots, first_moment_dtype="bfloat16"),
    "Adafactor": adafactor_slots,
    "Momentum": momentum_slots,
    "Momentum-HP": functools.partial(momentum_slots, first_moment_dtype="bfloat16"),
}


class StateCost(NamedTuple):
    """Bytes that training holds besides activations and gradients, by kind."""

    optimizer: str
    parameters: int
    weights: int
    first_moment: int
    second_moment: int
    average: int

    @property
    def state(self) -> int:
        """Bytes of the optimizer's state."""
        return self.first_moment + self.second_moment + self.average

    @property
    def ratio(self) -> float:
        """Bytes of state over bytes of weights."""
        return self.state / self.weights

    @property
    def total(self) -> int:
        """Bytes of weights and state."""
        return self.weights + self.state


def state_cost(
    optimizer: str,
    slots: Callable[[Shape], Slots],
    variables: Iterable[tuple[str, Sequence[int]]],
    *,
    frozen: Callable[[str], bool] = lambda path: False,
    average: bool = False,
    weights_dtype: str = "float32",
) -> StateCost:
    """Return what a model's weights cost under an optimizer; nothing is allocated.

    Args:
        optimizer: Its name, for the table.
        slots: From a weight's shape to its state, such as `adam_slots`.
        variables: (path, shape) of every trained weight.
        frozen: Whether the weight of a path is frozen: it then has no state.
        average: Whether a Polyak average is kept.
        weights_dtype: Dtype of the weights and their averages.
    """
    parameters = 0
    parts = {"first": 0, "second": 0, "average": 0}
    for path, sizes in variables:
        shape = tuple(sizes)
        parameters += math.prod(shape)
        if frozen(path):
            continue
        if average:
            parts["average"] += math.prod(shape) * BYTES[weights_dtype]
        for name, slot in slots(shape).items():
            kind = "second" if name.startswith("second") else "first"
            parts[kind] += math.prod(slot.shape) * BYTES[slot.dtype]
    weights = parameters * BYTES[weights_dtype]
    return StateCost(
        optimizer,
        parameters,
        weights,
        parts["first"],
        parts["second"],
        parts["average"],
    )


def cost_of(optimizer: Any, variables: Iterable[Any]) -> StateCost:
    """Return the cost of an optimizer of this package for a model's variables.

    Args:
        optimizer: Instance of `base.Optimizer`, built or not.
        variables: Anything with `path` and `shape`, as `model.trainable_variables`.
    """
    multipliers = optimizer.learning_rate_multipliers
    return state_cost(
        optimizer.name,
        optimizer.slots,
        [(variable.path, tuple(variable.shape)) for variable in variables],
        frozen=lambda path: value_for(path, multipliers, default=1.0) == 0,
        average=optimizer.average_decay is not None,
    )


def cost_table(
    variables: Iterable[tuple[str, Sequence[int]]],
    optimizers: Mapping[str, Callable[[Shape], Slots]] | None = None,
    *,
    average: bool = False,
) -> list[StateCost]:
    """Return the costs of several optimizers for (path, shape) pairs, row by row.

    Args:
        variables: (path, shape) of every weight.
        optimizers: Name to slots; default `OPTIMIZERS`.
        average: Whether a Polyak average is kept.
    """
    pairs = list(variables)
    return [
        state_cost(name, slots, pairs, average=average)
        for name, slots in (optimizers or OPTIMIZERS).items()
    ]


def cost_text(costs: Iterable[StateCost]) -> str:
    """Return costs as a table for people: GiB in all, and bytes per parameter."""
    lines = [
        f"{'optimizer':<14}{'weights':>10}{'1st moment':>12}{'2nd moment':>12}"
        f"{'average':>10}{'sum GiB':>10}{'bytes/param':>13}{'state/weights':>15}"
    ]
    for cost in costs:
        gib = [
            size / 2**30
            for size in (
                cost.weights,
                cost.first_moment,
                cost.second_moment,
                cost.average,
                cost.total,
            )
        ]
        lines.append(
            f"{cost.optimizer:<14}{gib[0]:>10.3f}{gib[1]:>12.3f}{gib[2]:>12.3f}"
            f"{gib[3]:>10.3f}{gib[4]:>10.3f}{cost.total / cost.parameters:>13.2f}"
            f"{cost.ratio:>15.3f}"
        )
    return "\n".join(lines)


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


def _without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]
