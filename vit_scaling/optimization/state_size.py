"""Bytes of weights and optimizer state, counted without TensorFlow (§3.4)."""
# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from vit_scaling.optimization.path_rules import value_for
from vit_scaling.optimization.update_rule import BYTES, UpdateRule
from vit_scaling.optimization.update_rules import UPDATE_RULES


class StateCost(NamedTuple):
    """Bytes that training needs besides activations and gradients, by kind."""

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


def moment_of(slot: str) -> str:
    """Return which of `StateCost`'s moments a slot of this name is counted as."""
    return "second_moment" if slot.startswith("second") else "first_moment"


def state_cost(
    optimizer: str,
    rule: UpdateRule,
    variables: Iterable[tuple[str, Sequence[int]]],
    *,
    is_frozen: Callable[[str], bool] = lambda path: False,
    average: bool = False,
) -> StateCost:
    """Return the bytes of float32 weights and their state; nothing is allocated.

    Args:
        optimizer: Name of the optimizer, for the table.
        rule: Its update rule.
        variables: (path, shape) of every trained weight.
        is_frozen: Whether the weight of a path is frozen: it then has no state.
        average: Whether a Polyak average is kept.
    """
    parameters = 0
    state = {"first_moment": 0, "second_moment": 0, "average": 0}
    for path, sizes in variables:
        shape = tuple(sizes)
        parameters += math.prod(shape)
        if is_frozen(path):
            continue
        state["average"] += average * math.prod(shape) * BYTES["float32"]
        for name, slot in rule.slots(shape).items():
            state[moment_of(name)] += math.prod(slot.shape) * BYTES[slot.dtype]
    return StateCost(optimizer, parameters, parameters * BYTES["float32"], **state)


def cost_of(optimizer: Any, variables: Iterable[Any]) -> StateCost:
    """Return the cost of an `Optimizer` for a model's variables.

    Args:
        optimizer: Instance of `Optimizer`, built or not.
        variables: Objects with `path` and `shape`, as `model.trainable_variables`.
    """
    multipliers = optimizer.learning_rate_multipliers
    return state_cost(
        optimizer.name,
        optimizer.rule,
        [(variable.path, variable.shape) for variable in variables],
        is_frozen=lambda path: value_for(path, multipliers, default=1.0) == 0,
        average=optimizer.average_decay is not None,
    )


def cost_table(
    variables: Iterable[tuple[str, Sequence[int]]], *, average: bool = False
) -> list[StateCost]:
    """Return the costs of all registered rules for (path, shape) pairs, row by row."""
    pairs = list(variables)
    return [
        state_cost(name, rule, pairs, average=average)
        for name, rule in UPDATE_RULES.items()
    ]


def cost_text(costs: Iterable[StateCost]) -> str:
    """Return costs as a table: GiB, and bytes per parameter."""
    lines = [
        f"{'optimizer':<14}{'weights':>10}{'1st moment':>12}{'2nd moment':>12}"
        f"{'average':>10}{'sum GiB':>10}{'bytes/param':>13}{'state/weights':>15}"
    ]
    for cost in costs:
        sizes = (*cost[2:], cost.total)
        gib = [
            f"{size / 2**30:>{width}.3f}"
            for size, width in zip(sizes, (10, 12, 12, 10, 10), strict=True)
        ]
        lines.append(
            f"{cost.optimizer:<14}{''.join(gib)}{cost.total / cost.parameters:>13.2f}"
            f"{cost.ratio:>15.3f}"
        )
    return "\n".join(lines)
