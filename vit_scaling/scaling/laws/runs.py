"""A typed table of runs: model, data, images seen, compute and error (§2)."""
# SPDX-License-Identifier: Apache-2.0

import collections
import csv
import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vit_scaling.modeling.shapes import SHAPES, ViTShape, shape_named
from vit_scaling.naming import unknown_name_message
from vit_scaling.scaling.laws.compute_units import (
    ACCEPTED_UNITS,
    CORE_DAYS,
    ComputeUnit,
    find_unit,
    parse_unit,
)

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Run:
    """One trained model and its error.

    Attributes:
        model: Name, such as "B/16"; runs of one name have one shape.
        compute: Training compute, in the unit of `compute_unit`; above 0.
        error: Error rate as a fraction, between 0 and 1.
        metric: Name of the evaluation, such as "imagenet_10shot".
        data_size: Number of different training images; None: unknown, or all.
        images_seen: Batch size × steps; None: unknown.
        compute_unit: Name of a unit: "core_days" (TPUv3, the paper's), "gflops", …
        shape: The model's dimensions; None: unknown.
        seed: Distinguishes repetitions of one run.
        weight: Weight of the run in a fit.
        source: Origin of the row, for messages.

    Raises:
        ValueError: A number is out of its range.
    """

    model: str
    compute: float
    error: float
    metric: str = "error"
    data_size: float | None = None
    images_seen: float | None = None
    compute_unit: str = CORE_DAYS
    shape: ViTShape | None = None
    seed: str = ""
    weight: float = 1.0
    source: str = ""

    def __post_init__(self) -> None:
        where = f" ({self.source})" if self.source else ""
        if not (math.isfinite(self.compute) and self.compute > 0):
            raise ValueError(
                "`compute` must be a finite number above 0; received "
                f"{self.compute!r} for {self.model}{where}."
            )
        if not 0 <= self.error <= 1:
            hint = (
                " For percent set error_unit='percent' (--error_unit=percent); a loss "
                "is not an error rate."
                if 1 < self.error <= 100
                else ""
            )
            raise ValueError(
                "`error` must be a fraction between 0 and 1; received "
                f"{self.error!r} for {self.model}{where}.{hint}"
            )
        unit = find_unit(self.compute_unit)
        if unit is None or unit.name != self.compute_unit:
            raise ValueError(
                unknown_name_message("compute unit", self.compute_unit, ACCEPTED_UNITS)
            )
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(
                f"`weight` must be 0 or more; received {self.weight!r} for "
                f"{self.model}{where}."
            )

    @property
    def key(self) -> tuple[Any, ...]:
        """Identity of the run: no two runs of a table have the same key."""
        duration = self.compute if self.images_seen is None else self.images_seen
        return self.model, self.data_size, duration, self.metric, self.seed


@dataclasses.dataclass(frozen=True)
class Runs:
    """An ordered table of runs of one compute unit, without duplicates.

    Raises:
        ValueError: There is no run, there are two compute units, or a run is repeated.
    """

    rows: tuple[Run, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("A table of runs needs at least one run; received none.")
        units = sorted({run.compute_unit for run in self.rows})
        if len(units) > 1:
            raise ValueError(
                f"`compute` must have one unit; received {' and '.join(units)}. "
                "Convert one of them, or split the table."
            )
        counted = collections.Counter(run.key for run in self.rows)
        if twice := [run for run in self.rows if counted[run.key] > 1]:
            first = twice[0]
            raise ValueError(
                f"{len(twice)} rows are duplicate runs, for example {first.model} on "
                f"{first.data_size} images with compute {first.compute:g} "
                f"({first.metric}). Remove them, or distinguish repetitions in a seed "
                "column (--seed_column)."
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.rows)

    @property
    def compute(self) -> Floats:
        """Compute of every run, shape (runs,)."""
        return np.array([run.compute for run in self.rows])

    @property
    def error(self) -> Floats:
        """Error of every run as a fraction, shape (runs,)."""
        return np.array([run.error for run in self.rows])

    @property
    def weight(self) -> Floats:
        """Weight of every run, shape (runs,)."""
        return np.array([run.weight for run in self.rows])

    @property
    def compute_unit(self) -> str:
        """Name of the unit of all runs' compute."""
        return self.rows[0].compute_unit

    @property
    def unit(self) -> ComputeUnit:
        """Unit of all runs' compute."""
        return parse_unit(self.compute_unit)

    def in_unit(self, unit: ComputeUnit) -> "Runs":
        """Return the runs with compute in another unit of the same quantity.

        Raises:
            ValueError: The unit measures something else.
        """
        if unit.quantity != self.unit.quantity:
            raise ValueError(
                f"The compute of these runs is in {self.compute_unit}, which cannot be "
                f"converted to {unit.name}. Use --budget_unit={self.compute_unit}."
            )
        ratio = self.unit.factor / unit.factor
        return Runs(
            tuple(
                dataclasses.replace(
                    run, compute=run.compute * ratio, compute_unit=unit.name
                )
                for run in self.rows
            )
        )

    @property
    def metrics(self) -> list[str]:
        """The metrics in the table, in order of appearance."""
        return list(dict.fromkeys(run.metric for run in self.rows))

    @property
    def models(self) -> list[str]:
        """The models in the table, cheapest first (by their cheapest run)."""
        cheapest: dict[str, float] = {}
        for run in self.rows:
            cheapest[run.model] = min(run.compute, cheapest.get(run.model, run.compute))
        return sorted(cheapest, key=lambda model: cheapest[model])

    @property
    def data_sizes(self) -> list[float]:
        """The known data sizes, smallest first."""
        return sorted({run.data_size for run in self.rows if run.data_size is not None})

    def where(self, keep: Callable[[Run], bool]) -> "Runs":
        """Return the runs that `keep` accepts.

        Raises:
            ValueError: It accepts no run.
        """
        return Runs(tuple(run for run in self.rows if keep(run)))

    def take(self, indices: Iterable[int]) -> "Runs":
        """Return the runs at these positions."""
        return Runs(tuple(self.rows[int(index)] for index in indices))

    def of_metric(self, metric: str | None) -> "Runs":
        """Return the runs of one metric; None asks for the only one.

        Raises:
            ValueError: No run has it, or None was given and there are several.
        """
        if metric is None and len(self.metrics) == 1:
            return self
        if metric is None:
            raise ValueError(
                f"The table holds several metrics: {', '.join(self.metrics)}. Choose "
                "one with `metric` (--metric)."
            )
        if metric not in self.metrics:
            raise ValueError(
                unknown_name_message("metric of these runs", metric, self.metrics)
            )
        return self.where(lambda run: run.metric == metric)

    def averaged_over_seeds(self) -> "Runs":
        """Return one run per model, data size and duration: the mean over its seeds."""
        groups: dict[tuple[Any, ...], list[Run]] = {}
        for run in self.rows:
            groups.setdefault(run.key[:-1], []).append(run)
        return Runs(
            tuple(
                dataclasses.replace(
                    group[0],
                    error=float(np.mean([run.error for run in group])),
                    compute=float(np.mean([run.compute for run in group])),
                    weight=float(np.mean([run.weight for run in group])),
                    seed="",
                )
                for group in groups.values()
            )
        )


def find_shape(model: str) -> ViTShape | None:
    """Return the shape of the paper that `model` names; None for other names.

    Raises:
        ValueError: The name is a variant without its patch size, such as "Ti".
    """
    candidates = [name for name in SHAPES if name.startswith(f"{model}/")]
    if candidates:
        raise ValueError(
            f"Model {model!r} has no patch size, which decides its FLOPs. Write "
            f"{' or '.join(candidates)}, or {model}/ and another patch size."
        )
    try:
        return shape_named(model)
    except ValueError:
        return None


def write_csv(runs: Runs, path: str | pathlib.Path) -> None:
    """Write a table that `read_runs` reads back."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*CSV_COLUMNS, *SHAPE_COLUMNS])
        for run in runs:
            cells = [getattr(run, column) for column in CSV_COLUMNS]
            cells += [getattr(run.shape, column, None) for column in SHAPE_COLUMNS]
            writer.writerow(["" if cell is None else cell for cell in cells])


CSV_COLUMNS: Sequence[str] = (
    *("model", "data_size", "images_seen", "compute", "compute_unit"),
    *("error", "metric", "seed", "weight", "source"),
)
# For models that are not named after a shape of the paper. All five or none.
SHAPE_COLUMNS = tuple(field.name for field in dataclasses.fields(ViTShape))
