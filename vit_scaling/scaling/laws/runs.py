"""A typed table of runs: model, data, images seen, compute and error (§2)."""
# SPDX-License-Identifier: Apache-2.0

import collections
import csv
import dataclasses
import math
import pathlib
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vit_scaling.modeling.shapes import SHAPES, ViTShape, shape_named
from vit_scaling.naming import check_known, unknown_name_message
from vit_scaling.scaling.laws.compute_units import (
    ACCEPTED_UNITS,
    CORE_DAYS,
    ComputeUnit,
    find_unit,
    parse_unit,
)

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]
_TARGET_RANGES = {
    "error": "an error rate as a fraction between 0 and 1",
    "loss": "a finite loss of 0 or more",
}
TARGETS = tuple(_TARGET_RANGES)


@dataclasses.dataclass(frozen=True)
class Run:
    """One trained model, or a checkpoint of it, and its error.

    Attributes:
        model: Name, such as "B/16"; runs of one name have one shape.
        compute: Training compute, in the unit of `compute_unit`; above 0.
        error: The value that compute lowers: an error rate as a fraction between 0 and
            1, or a loss of 0 or more, as `target` says.
        metric: Name of the evaluation, such as "imagenet_10shot".
        data_size: Number of different training examples or tokens; None: unknown, or
            all.
        images_seen: Batch size × steps: examples, or tokens of text; None: unknown.
        compute_unit: Name of a unit: "core_days" (TPUv3, the paper's), "gflops", …
        shape: The model's dimensions; None: unknown.
        seed: Distinguishes repetitions of one run.
        weight: Weight of the run in a fit.
        source: Origin of the row, for messages.
        target: What `error` is: "error" or "loss".
        parameters: Number of weights of the model; None: unknown.
        training_run: Name of the training run of which this is a checkpoint. Its
            checkpoints are correlated, so they are resampled together. "": the row is
            a training run of its own.

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
    source: str = dataclasses.field(default="", compare=False)
    target: str = "error"
    parameters: float | None = None
    training_run: str = ""

    def __post_init__(self) -> None:
        where = f" ({self.source})" if self.source else ""
        if not (math.isfinite(self.compute) and self.compute > 0):
            raise ValueError(
                "`compute` must be a finite number above 0; received "
                f"{self.compute!r} for {self.model}{where}."
            )
        check_known("target", self.target, TARGETS)
        largest = 1 if self.target == "error" else math.inf
        if not (0 <= self.error <= largest and math.isfinite(self.error)):
            raise ValueError(
                f"`error` must be {_TARGET_RANGES[self.target]}; received "
                f"{self.error!r} for {self.model}{where}.{self._range_hint}"
            )
        for name in ("parameters", "images_seen", "data_size"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(
                    f"`{name}` must be a finite number above 0, or None if it is not "
                    f"known; received {value!r} for {self.model}{where}."
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
    def _range_hint(self) -> str:
        if self.target == "error" and self.error > 1:
            return (
                " For percent set error_unit='percent' (--error_unit=percent); for a "
                "loss name its column with loss (--loss_column)."
            )
        return ""

    @property
    def key(self) -> tuple[Any, ...]:
        """Identity of the run: no two runs of a table have the same key."""
        duration = self.compute if self.images_seen is None else self.images_seen
        size = self.parameters
        return self.model, size, self.data_size, duration, self.metric, self.seed


@dataclasses.dataclass(frozen=True, repr=False)
class Runs:
    """An ordered table of runs of one compute unit and one target, without duplicates.

    Attributes:
        rows: The runs.
        notes: How the runs were read from a table, in sentences.

    Raises:
        ValueError: There is no run, there are two compute units or targets, or a run
            is repeated.
    """

    rows: tuple[Run, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("A table of runs needs at least one run; received none.")
        units = sorted({run.compute_unit for run in self.rows})
        if len(units) > 1:
            raise ValueError(
                f"`compute` must have one unit; received {' and '.join(units)}. "
                "Convert one of them, or split the table."
            )
        if len({run.target for run in self.rows}) > 1:
            raise ValueError(
                "Runs have either errors or losses; received both. Split the table."
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

    def __repr__(self) -> str:
        """Return a short description: tables have hundreds of rows."""
        return (
            f"Runs({len(self)} runs of {len(self.models)} models, "
            f"{', '.join(self.metrics)}, compute in {self.unit.label})"
        )

    def to_frame(self) -> "pd.DataFrame":
        """Return a DataFrame with a row per run and a column per attribute of `Run`."""
        import pandas as pd

        names = [field.name for field in dataclasses.fields(Run)]
        return pd.DataFrame([{n: getattr(run, n) for n in names} for run in self.rows])

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
    def parameters(self) -> Floats:
        """Parameters of every run, shape (runs,); NaN where they are not known."""
        return np.array([run.parameters or np.nan for run in self.rows])

    @property
    def images_seen(self) -> Floats:
        """Examples or tokens seen by every run, shape (runs,); NaN: not known."""
        return np.array([run.images_seen or np.nan for run in self.rows])

    @property
    def clusters(self) -> npt.NDArray[np.int_]:
        """Number of the training run of each row, shape (runs,), from 0.

        Checkpoints of one training run have one number. Resample these numbers, not
        rows, where rows are correlated.
        """
        names = [
            ("run", run.training_run) if run.training_run else ("row", str(position))
            for position, run in enumerate(self.rows)
        ]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return np.array([numbers[name] for name in names])

    @property
    def target(self) -> str:
        """What `error` is for all runs: "error" or "loss"."""
        return self.rows[0].target

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
        return self._with_rows(
            dataclasses.replace(
                run, compute=run.compute * ratio, compute_unit=unit.name
            )
            for run in self.rows
        )

    def _with_rows(self, rows: Iterable[Run]) -> "Runs":
        return Runs(tuple(rows), self.notes)

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
        return self._with_rows(run for run in self.rows if keep(run))

    def take(self, indices: Iterable[int]) -> "Runs":
        """Return the runs at these positions."""
        return self._with_rows(self.rows[int(index)] for index in indices)

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
        return self._with_rows(
            dataclasses.replace(
                group[0],
                error=statistics.fmean(run.error for run in group),
                compute=statistics.fmean(run.compute for run in group),
                weight=statistics.fmean(run.weight for run in group),
                seed="",
            )
            for group in groups.values()
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
    """Write a table that `runs_from` reads back."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*CSV_COLUMNS, *_MORE_COLUMNS, *SHAPE_COLUMNS])
        for run in runs:
            cells = [getattr(run, column) for column in (*CSV_COLUMNS, *_MORE_COLUMNS)]
            cells += [getattr(run.shape, column, None) for column in SHAPE_COLUMNS]
            writer.writerow(["" if cell is None else cell for cell in cells])


CSV_COLUMNS: Sequence[str] = (
    *("model", "data_size", "images_seen", "compute", "compute_unit"),
    *("error", "metric", "seed", "weight", "source"),
)
_MORE_COLUMNS = ("target", "parameters", "training_run")
# For models that are not named after a shape of the paper. All five or none.
SHAPE_COLUMNS = tuple(field.name for field in dataclasses.fields(ViTShape))
