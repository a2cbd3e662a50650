"""A stand-in for the parts of Apache Beam that the driver uses, in memory.

Whatever passes from worker to worker is pickled, and its order is reversed, since Beam
guarantees none.
"""
# SPDX-License-Identifier: Apache-2.0

import collections
import contextlib
import dataclasses
import pickle
import types
from collections.abc import Callable, Iterator
from typing import Any


def _send(values: list[Any]) -> list[Any]:
    return pickle.loads(pickle.dumps(values[::-1]))


@dataclasses.dataclass
class Step:
    """A step of a pipeline: from the values of a collection to others."""

    run: Callable[[Any], Any]

    def __rrshift__(self, name: str) -> "Step":
        assert isinstance(name, str)
        return self

    def __ror__(self, collections_: Any) -> Any:
        if isinstance(collections_, tuple):
            return Collection(self.run([c.values for c in collections_]))
        found = self.run(collections_.values)
        if isinstance(found, tuple):
            return tuple(Collection(values) for values in found)
        return Collection(found)


@dataclasses.dataclass
class Collection:
    """The values of a collection, all in memory."""

    values: list[Any]


def _arguments(arguments: tuple) -> tuple:
    return tuple(
        argument.values[0] if isinstance(argument, Collection) else argument
        for argument in pickle.loads(pickle.dumps(arguments))
    )


def _map(function: Callable[..., Any], *arguments: Any) -> Step:
    return Step(lambda values: [function(v, *_arguments(arguments)) for v in values])


def _flat_map(function: Callable[..., Any], *arguments: Any) -> Step:
    return Step(
        lambda values: [
            found for v in values for found in function(v, *_arguments(arguments))
        ]
    )


def _partition(function: Callable[..., int], count: int, *arguments: Any) -> Step:
    def run(values: list[Any]) -> tuple[list[Any], ...]:
        parts: tuple[list[Any], ...] = tuple([] for _ in range(count))
        for value in values:
            parts[function(value, count, *arguments)].append(value)
        return parts

    return Step(run)


def _group(values: list[tuple[Any, Any]]) -> list[tuple[Any, list[Any]]]:
    groups = collections.defaultdict(list)
    for key, value in _send(values):
        groups[key].append(value)
    return list(groups.items())


def _count(values: list[Any]) -> list[tuple[Any, int]]:
    return list(collections.Counter(_send(values)).items())


MODULE = types.SimpleNamespace(
    Create=lambda values: Step(lambda _: _send(list(values))),
    Reshuffle=lambda: Step(_send),
    Map=_map,
    FlatMap=_flat_map,
    Partition=_partition,
    GroupByKey=lambda: Step(_group),
    Flatten=lambda: Step(lambda parts: [v for values in parts for v in values]),
    combiners=types.SimpleNamespace(
        ToList=lambda: Step(lambda values: [values]),
        Count=types.SimpleNamespace(PerElement=lambda: Step(_count)),
    ),
    pvalue=types.SimpleNamespace(AsSingleton=lambda collection: collection),
)


@contextlib.contextmanager
def make_pipeline(runner: str, options: list[str]) -> Iterator[Collection]:
    """Context manager: an empty pipeline, which runs each step as it is added."""
    del runner, options
    yield Collection([])
