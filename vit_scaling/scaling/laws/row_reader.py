"""Turn the cells of a table's row into a run: units, percent, derived compute."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.naming import check_known
from vit_scaling.scaling.laws.columns import TARGET_FIELDS
from vit_scaling.scaling.laws.compute_units import FLOPS, find_unit, parse_unit
from vit_scaling.scaling.laws.runs import SHAPE_COLUMNS, Run, find_shape

FLOPS_PER_PARAMETER = 6  # Of one example or token: Kaplan et al. 2020, §2.1.
_SUFFIXES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_MISSING = ("", "nan", "na", "n/a", "none", "null", "<na>", "-")
_PERCENT = re.compile(r"%|pct|percent", re.IGNORECASE)


def parse_quantity(text: str) -> float:
    """Return the number in texts such as "30M", "1.2e9" or "3B".

    Raises:
        ValueError: The text is not a number.
    """
    match = re.fullmatch(r"\s*([-+0-9.eE]+|nan|inf)\s*([kKmMbBgGtT]?)\s*", str(text))
    try:
        if not match:
            raise ValueError
        return float(match.group(1)) * _SUFFIXES.get(match.group(2).lower(), 1.0)
    except ValueError:
        decimal = "," in str(text)
        hint = " Write decimals with a point." if decimal else ""
        raise ValueError(
            f"A number was expected, such as 1.5e6 or 30M; received {text!r}.{hint}"
        ) from None


@dataclasses.dataclass(frozen=True)
class TableOptions:
    """How the cells of a table are read.

    Attributes:
        unit: Unit of all compute, such as "core_days" or "gflops"; None reads it from
            the unit column, the cells ("3e18 FLOPs") or the compute column's name.
        error_unit: "fraction" or "percent", of errors and accuracies; None: percent if
            the column's name says so ("error_pct"), else fraction.
        flops_per_example: Maps a shape to the training FLOPs per image, for rows
            without compute; None: only 6 FLOPs per parameter and example are counted.
    """

    unit: str | None = None
    error_unit: str | None = None
    flops_per_example: Callable[[ViTShape], float] | None = None

    def __post_init__(self) -> None:
        if self.error_unit is not None:
            check_known("error_unit", self.error_unit, ("fraction", "percent"))
        if self.unit is not None:
            name = parse_unit(self.unit, name="--compute_unit").name
            object.__setattr__(self, "unit", name)


class RowReader:
    """Turns the cells of a row into a run, and notes what it left out."""

    def __init__(
        self, columns: Mapping[str, str], options: TableOptions, name: str
    ) -> None:
        self.columns, self.options = columns, options
        self.target = next(f for f in TARGET_FIELDS if f in columns)
        self.file = pathlib.Path(name).name
        self.left_out: dict[str, list[str]] = {}
        self.derived: dict[str, int] = {}
        by_name = options.error_unit is None and _PERCENT.search(columns[self.target])
        self.percent = options.error_unit == "percent" or bool(by_name)
        if "compute" not in columns and not self._can_derive_compute():
            raise ValueError(
                f"{name} has no column 'compute' for compute, and none for the number "
                "of parameters and of examples to derive it from. Choose one with "
                "--compute_column, or --size_column and --examples_column."
            )

    def _can_derive_compute(self) -> bool:
        known = self.columns.keys()
        by_shape = "model" in known and self.options.flops_per_example is not None
        return "examples" in known and ("size" in known or by_shape)

    def cell(self, cells: Mapping[str, Any], field: str) -> str:
        """Return a field's cell as text; "" if it is missing."""
        text = str(cells[self.columns[field]] if field in self.columns else "").strip()
        return "" if text.lower() in _MISSING else text

    def amount(self, cells: Mapping[str, Any], field: str) -> float | None:
        """Return a field's number; None if the cell is missing."""
        text = self.cell(cells, field)
        try:
            return parse_quantity(text) if text else None
        except ValueError as error:
            raise ValueError(
                f"column {self.columns[field]!r}: {error} Correct the cell, leave the "
                f"row out with --where, or choose another --{field}_column."
            ) from None

    def parse(self, cells: Mapping[str, Any], row: str) -> Run | None:
        """Return the run of a row; None if its compute or target is missing."""
        size, examples = self.amount(cells, "size"), self.amount(cells, "examples")
        shape = _parse_shape(cells)
        model = self.cell(cells, "model")
        shape = shape or _find_shape(model, size)
        compute, unit = self._compute(cells, size, examples, shape)
        value = self.amount(cells, self.target)
        if compute is None or value is None:
            missing = "compute" if compute is None else self.target
            self.left_out.setdefault(missing, []).append(row)
            return None
        error, target = self._convert(value, self.cell(cells, "target"))
        if examples is None and size and unit and unit.endswith("flops"):
            flops = compute * parse_unit(unit).factor
            examples = flops / (FLOPS_PER_PARAMETER * size)
            self._count("examples = FLOPs / (6 × parameters)")
        weight = self.amount(cells, "weight")
        try:
            return Run(
                model=model or (_size_name(size) if size else "unnamed"),
                compute=compute,
                error=error,
                metric=self.cell(cells, "metric") or target,
                data_size=self.amount(cells, "data_size"),
                images_seen=examples,
                compute_unit=unit,
                shape=shape,
                seed=self.cell(cells, "seed"),
                weight=1.0 if weight is None else weight,
                source=self.cell(cells, "source") or f"{self.file}:{row.split()[-1]}",
                target=target,
                parameters=size,
                training_run=self.cell(cells, "run"),
            )
        except ValueError as error_:
            raise ValueError(self._name_columns(str(error_))) from None

    def _name_columns(self, message: str) -> str:
        """Add to a message of `Run` the column that holds the rejected value."""
        fields = {"error": self.target, "parameters": "size", "images_seen": "examples"}
        match = re.match(r"`(\w+)`", message)
        field = fields.get(match[1], match[1]) if match else ""
        if field not in self.columns:
            return message
        return (
            f"{message} (Column {self.columns[field]!r}; --{field}_column names "
            "another, --where leaves rows out.)"
        )

    def _compute(
        self,
        cells: Mapping[str, Any],
        size: float | None,
        examples: float | None,
        shape: ViTShape | None,
    ) -> tuple[float | None, str]:
        """Return the compute of a row and its unit; derive it if it has no column."""
        if "compute" in self.columns:
            text = self.cell(cells, "compute")
            if not text:
                return None, FLOPS
            number, unit = _parse_compute(text, self.cell(cells, "compute_unit"))
            column = self.columns["compute"]
            return number, _choose_unit(unit, self.options.unit, column)
        if examples is None:
            return None, FLOPS
        if shape is not None and self.options.flops_per_example is not None:
            self._count("compute = FLOPs of the model's shape × examples")
            return self.options.flops_per_example(shape) * examples, FLOPS
        if size is None:
            return None, FLOPS
        self._count("compute = 6 × parameters × examples FLOPs")
        return FLOPS_PER_PARAMETER * size * examples, FLOPS

    def _convert(self, value: float, target: str) -> tuple[float, str]:
        """Return the error or loss that a cell's value stands for, and which."""
        if self.target == "perplexity":
            if not value >= 1:
                raise ValueError(
                    f"column {self.columns['perplexity']!r}: a perplexity must be 1 or "
                    f"more; received {value!r}. Name a loss with --loss_column."
                )
            return math.log(value), "loss"
        if self.target == "loss" or target == "loss":
            return value, "loss"
        value = value / 100 if self.percent else value
        if self.target == "accuracy" or is_accuracy(self.columns[self.target]):
            if not 0 <= value <= 1:
                raise ValueError(
                    f"column {self.columns[self.target]!r}: an accuracy must be a "
                    f"fraction between 0 and 1; received {value!r}. For percent set "
                    "error_unit='percent' (--error_unit=percent)."
                )
            return 1 - value, "error"
        return value, "error"

    def _count(self, note: str) -> None:
        self.derived[note] = self.derived.get(note, 0) + 1

    def notes(self) -> list[str]:
        """Return the columns that were used and the rows left out, in sentences."""
        column = self.columns[self.target]
        accuracy = self.target == "accuracy" or is_accuracy(column)
        meaning = {"perplexity": f"loss: log of {column!r}"}.get(
            self.target,
            f"error: 1 - {column!r}" if accuracy else f"{self.target}: {column!r}",
        )
        if self.target in ("error", "accuracy"):
            meaning += " in percent" if self.percent else " as a fraction"
        others = [
            f"{field}: {name!r}"
            for field, name in self.columns.items()
            if field not in TARGET_FIELDS
        ]
        notes = [f"Columns: {', '.join([meaning, *others])}."]
        notes += [f"{note} in {count} rows." for note, count in self.derived.items()]
        for field, rows in self.left_out.items():
            where = f", the first in {rows[0]}" if rows else ""
            notes.append(f"{len(rows)} rows without {field} are left out{where}.")
        return notes


def _find_shape(model: str, size: float | None) -> ViTShape | None:
    """Return the shape that a model's name means; None for other names.

    A variant without its patch is an error, unless the row has the size: then it needs
    no shape.
    """
    if not model:
        return None
    try:
        return find_shape(model)
    except ValueError:
        if size is None:
            raise
        return None


def _size_name(size: float) -> str:
    """Return a name for a model of which only the size is known: "162.8M"."""
    for suffix, unit in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if size >= unit:
            return f"{size / unit:.4g}{suffix}"
    return f"{size:.4g}"


def _choose_unit(of_row: str | None, requested: str | None, column: str) -> str:
    """Return the unit of a row's compute: requested, of the row or of the column."""
    by_name = find_unit(column)
    expected = requested or (by_name.name if by_name else None)
    if of_row and expected and of_row != expected:
        raise ValueError(
            f"`compute` must have one unit; received {of_row} in the row where "
            f"{expected} was requested."
        )
    return expected or of_row or parse_unit(column, name="the column").name


def _parse_shape(cells: Mapping[str, Any]) -> ViTShape | None:
    """Return the shape in a row's shape columns; None unless all are filled."""
    texts = [str(cells.get(name, "")).strip() for name in SHAPE_COLUMNS]
    if any(text.lower() in _MISSING for text in texts):
        return None
    sizes = [parse_quantity(text) for text in texts]
    if any(size != int(size) for size in sizes):
        raise ValueError(
            f"{', '.join(SHAPE_COLUMNS)} must be whole numbers; received "
            f"{', '.join(texts)}."
        )
    return ViTShape(*(int(size) for size in sizes))


def is_accuracy(column: str) -> bool:
    """Return whether a column is named as an accuracy: "acc1", "top1_accuracy"."""
    return bool(re.search(r"(^|[^a-z])acc(uracy)?\d*([^a-z]|$)", column.lower())) and (
        "err" not in column.lower()
    )


def _parse_compute(text: str, unit_cell: str) -> tuple[float, str | None]:
    """Return the number and the unit, if any, of a cell such as "3e18 FLOPs"."""
    number, *rest = text.split(maxsplit=1)
    units = {
        parse_unit(word, name="the cell").name for word in (*rest, unit_cell) if word
    }
    if len(units) > 1:
        raise ValueError(
            f"`compute` must have one unit; received {' and '.join(sorted(units))}."
        )
    return parse_quantity(number), next(iter(units), None)
