"""Read runs from a CSV file with any column names, or from a sweep's folder."""
# SPDX-License-Identifier: Apache-2.0

import csv
import dataclasses
import math
import pathlib
import re

from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.naming import check_known, did_you_mean
from vit_scaling.scaling.laws.compute_units import find_unit, parse_unit
from vit_scaling.scaling.laws.runs import SHAPE_COLUMNS, Run, Runs, find_shape

_SUFFIXES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}
_COMPUTE_COLUMNS = ("compute", "core_days", "flops")
# A TPUv3 core executes some 2e18 operations a day: a table of both units spans this.
_MIXED_UNITS_SPAN = 1e12


@dataclasses.dataclass(frozen=True)
class Columns:
    """The names of a CSV's columns; None: the field's own name, if it exists.

    Attributes:
        compute: Default: the first of "compute", "core_days" and "flops".
        compute_unit: The column with the unit of each row.
    """

    model: str | None = None
    compute: str | None = None
    error: str | None = None
    metric: str | None = None
    data_size: str | None = None
    images_seen: str | None = None
    compute_unit: str | None = None
    seed: str | None = None
    weight: str | None = None
    source: str | None = None


def parse_quantity(text: str) -> float:
    """Return the number in texts such as "30M", "1.2e9" or "3B".

    Raises:
        ValueError: The text is not a number.
    """
    match = re.fullmatch(r"\s*([-+0-9.eE]+|nan|inf)\s*([kKmMbBgG]?)\s*", str(text))
    try:
        if not match:
            raise ValueError
        return float(match.group(1)) * _SUFFIXES.get(match.group(2).lower(), 1.0)
    except ValueError:
        raise ValueError(
            f"A number was expected, such as 1.5e6 or 30M; received {text!r}."
        ) from None


def read_runs(
    source: str | pathlib.Path,
    *,
    columns: Columns | None = None,
    compute_unit: str | None = None,
    error_unit: str = "fraction",
) -> Runs:
    """Read a table of runs.

    Args:
        source: A CSV file with a header, or a sweep's folder with `runs.csv`.
        columns: Names of the columns.
        compute_unit: Unit of all compute, such as "core_days" or "gflops"; None reads
            it from the unit column, from the cells ("3e18 FLOPs") or from the compute
            column's name ("gflops_total").
        error_unit: "fraction" (between 0 and 1) or "percent". A column that is named
            as an accuracy ("acc1") is read as one minus the error.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: A column is missing, a cell cannot be read, an error is outside
            [0, 1] or in the other unit, compute is zero, of two units or of an
            unknown one, or a run is repeated.
    """
    path = _find_table(source)
    check_known("error_unit", error_unit, ("fraction", "percent"))
    if compute_unit is not None:
        compute_unit = parse_unit(compute_unit, name="--compute_unit").name
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        header = list(reader.fieldnames or ())
        lines = list(reader)
    names = _find_columns(columns or Columns(), header, path)
    if not lines:
        raise ValueError(f"{path} has a header and no row.")
    rows = []
    for number, line in enumerate(lines, start=2):
        try:
            rows.append(_parse_run(line, names, compute_unit, error_unit, path, number))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    runs = Runs(tuple(rows))
    _check_ranges(runs, error_unit, path)
    return runs


def _find_table(source: str | pathlib.Path) -> pathlib.Path:
    path = pathlib.Path(source)
    if path.is_dir() and not (path / "runs.csv").is_file():
        raise FileNotFoundError(
            f"{source} has no runs.csv. No run of this sweep has finished, or the "
            "folder is another one."
        )
    if not path.exists():
        raise FileNotFoundError(
            f"No table of runs exists at {source}. Give a CSV file, a sweep's folder "
            f"or the word paper.{did_you_mean(source, ['paper'])}"
        )
    return path / "runs.csv" if path.is_dir() else path


def _find_columns(
    columns: Columns, header: list[str], path: pathlib.Path
) -> dict[str, str]:
    names = {}
    for field, wanted in dataclasses.asdict(columns).items():
        usual = _COMPUTE_COLUMNS if field == "compute" else (field,)
        name = wanted or next((name for name in usual if name in header), None)
        if name in header and name is not None:
            names[field] = name
        elif wanted or field in ("compute", "error"):
            raise ValueError(
                f"{path} has no column {wanted or field!r} for {field}."
                f"{did_you_mean(wanted or field, header)} Its columns are "
                f"{', '.join(header)}: choose one with --{field}_column."
            )
    return names


def _parse_run(
    line: dict[str, str],
    names: dict[str, str],
    compute_unit: str | None,
    error_unit: str,
    path: pathlib.Path,
    number: int,
) -> Run:
    def cell(field: str) -> str:
        return (line.get(names.get(field, "")) or "").strip()

    def amount(field: str) -> float | None:
        return parse_quantity(cell(field)) if cell(field) else None

    compute, unit = _parse_compute(cell("compute"), cell("compute_unit"))
    model = cell("model") or "unnamed"
    weight = amount("weight")
    error = parse_quantity(cell("error")) / (100 if error_unit == "percent" else 1)
    return Run(
        model=model,
        compute=compute,
        error=1 - error if _is_accuracy(names["error"]) else error,
        metric=cell("metric") or "error",
        data_size=amount("data_size"),
        images_seen=amount("images_seen"),
        compute_unit=_choose_unit(unit, compute_unit, names["compute"]),
        shape=_parse_shape(line) or find_shape(model),
        seed=cell("seed"),
        weight=1.0 if weight is None else weight,
        source=cell("source") or f"{path.name}:{number}",
    )


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


def _parse_shape(line: dict[str, str]) -> ViTShape | None:
    """Return the shape in a row's shape columns; None unless all are filled."""
    cells = [(line.get(name) or "").strip() for name in SHAPE_COLUMNS]
    if not all(cells):
        return None
    sizes = [parse_quantity(cell) for cell in cells]
    if any(size != int(size) for size in sizes):
        raise ValueError(
            f"{', '.join(SHAPE_COLUMNS)} must be whole numbers; received "
            f"{', '.join(cells)}."
        )
    return ViTShape(*(int(size) for size in sizes))


def _is_accuracy(column: str) -> bool:
    """Return whether a column is named as an accuracy: "acc1", "top1_accuracy"."""
    return bool(re.search(r"(^|[^a-z])acc(uracy)?\d*([^a-z]|$)", column.lower())) and (
        "err" not in column.lower()
    )


def _parse_compute(text: str, unit_cell: str) -> tuple[float, str | None]:
    """Return the number and the unit, if any, of a cell such as "3e18 FLOPs"."""
    number, *rest = text.split(maxsplit=1) or [""]
    units = {
        parse_unit(word, name="the cell").name for word in (*rest, unit_cell) if word
    }
    if len(units) > 1:
        raise ValueError(
            f"`compute` must have one unit; received {' and '.join(sorted(units))}."
        )
    return parse_quantity(number), next(iter(units), None)


def _check_ranges(runs: Runs, error_unit: str, path: pathlib.Path) -> None:
    if error_unit == "percent" and runs.error.max() <= 0.01:
        raise ValueError(
            f"All errors of {path} are at most 1 and `error_unit` is 'percent': they "
            "look like fractions. Use --error_unit=fraction."
        )
    span = runs.compute.max() / runs.compute.min()
    if span > _MIXED_UNITS_SPAN:
        raise ValueError(
            f"`compute` of {path} spans a factor of 10^{math.log10(span):.0f}: it "
            "looks like mixed units. Give all rows one unit."
        )
