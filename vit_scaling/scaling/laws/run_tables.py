"""Runs from any table: a file, a folder or a DataFrame, with any columns and units."""
# SPDX-License-Identifier: Apache-2.0

import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Union

from typing_extensions import Unpack

from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.scaling.laws.columns import ColumnNames, find_columns
from vit_scaling.scaling.laws.row_filters import select_rows, split_groups
from vit_scaling.scaling.laws.row_reader import RowReader, TableOptions
from vit_scaling.scaling.laws.runs import Run, Runs
from vit_scaling.scaling.laws.table_files import read_run_folders, read_table

if TYPE_CHECKING:
    import pandas as pd

Source = Union[str, pathlib.Path, "pd.DataFrame", Sequence[str | pathlib.Path]]
# A TPUv3 core executes some 2e18 operations a day: a table of both units spans this.
_MIXED_UNITS_SPAN = 1e12
_MAX_LISTED = 6  # Columns in a message.


def runs_from(
    source: Source,
    /,
    *,
    unit: str | None = None,
    error_unit: str | None = None,
    where: str = "",
    flops_per_example: Callable[[ViTShape], float] | None = None,
    **columns: Unpack[ColumnNames],
) -> Runs:
    """Read runs from a table.

    Rows without compute or without the target are left out, identical rows are kept
    once, and empty cells of other columns are unknown values; `Runs.notes` says how
    many, and which columns were used.

    Args:
        source: A DataFrame, a file or folder as `read_table` takes it, or a list of
            training runs' folders.
        unit: Unit of the compute column; see `TableOptions`.
        error_unit: "fraction" or "percent"; see `TableOptions`.
        where: Rows to keep, such as "dataset=imagenet and params>=1e8".
        flops_per_example: See `TableOptions`.
        **columns: Names of the columns, see `ColumnNames`.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: A column is missing or a cell cannot be used; the message names the
            row, the column and the flag.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"pf_days": [1.0, 10.0], "loss": [3.1, 2.6]})
        >>> runs_from(table).unit.label
        'PF-days'
    """
    options = TableOptions(unit, error_unit, flops_per_example)
    table, name = load_table(source)
    return build_runs(select_rows(table, where, name), columns, options, name)


def grouped_runs_from(
    source: Source,
    group_by: str,
    *,
    where: str = "",
    options: TableOptions | None = None,
    columns: ColumnNames | None = None,
) -> dict[str, Runs]:
    """Read one `Runs` per value of the columns `group_by`, such as "family,metric".

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: As `runs_from`.
    """
    options, columns = options or TableOptions(), columns or {}
    table, name = load_table(source)
    table = select_rows(table, where, name)
    if not group_by:
        return {"": build_runs(table, columns, options, name)}
    return {
        group: build_runs(rows, columns, options, f"{name} ({group})")
        for group, rows in split_groups(table, group_by, name)
    }


def load_table(source: Source) -> "tuple[pd.DataFrame, str]":
    """Return the table of a source and its name for messages."""
    if isinstance(source, str | pathlib.Path):
        return read_table(source), str(source)
    if isinstance(source, list | tuple):
        return read_run_folders(source), ", ".join(map(str, source))
    return source, "The table"


def build_runs(
    table: "pd.DataFrame",
    given: Mapping[str, object],
    options: TableOptions,
    name: str,
) -> Runs:
    """Return the runs of a table's rows; see `runs_from`."""
    header = [str(column) for column in table.columns]
    table = table.set_axis(header, axis=1)
    if not len(table):
        raise ValueError(f"{name} has a header and no row.")
    reader = RowReader(find_columns(header, given, name), options, name)
    is_line = table.index.name == "line"
    rows: list[Run] = []
    kept = []
    for label, cells in zip(table.index, table.to_dict("records"), strict=True):
        row = f"line {label}" if is_line else f"row {label!r}"
        try:
            run = reader.parse(cells, row)
        except ValueError as error:
            raise ValueError(f"{name}, {row}: {error}") from None
        if run is not None:
            rows.append(run)
            kept.append({"": row, **cells})
    if not rows:
        raise ValueError(f"{name} has no usable row. {' '.join(reader.notes())}")
    _check_repetitions(rows, kept, reader.columns, name)
    unique = list(dict.fromkeys(rows))
    notes = reader.notes()
    if len(unique) < len(rows):
        notes.append(f"{len(rows) - len(unique)} repeated rows are counted once.")
    runs = Runs(tuple(unique), tuple(notes))
    _check_span(runs, name)
    return runs


def _check_repetitions(
    rows: Sequence[Run],
    cells: Sequence[Mapping[str, object]],
    columns: Mapping[str, str],
    name: str,
) -> None:
    """Raise if two rows are one run by the columns used, but not equal."""
    first: dict[tuple[object, ...], int] = {}
    for place, run in enumerate(rows):
        other = first.setdefault(run.key, place)
        if rows[other] == run:
            continue
        used = set(columns.values())
        differing = [
            key
            for key in cells[place]
            if key and key not in used and cells[other][key] != cells[place][key]
        ]
        differing[_MAX_LISTED:] = ["…"] * (len(differing) > _MAX_LISTED)
        has_models = bool(columns.keys() & {"size", "model"})
        raise ValueError(
            f"{name}: {cells[other]['']} and {cells[place]['']} are duplicate runs by "
            "the columns used. "
            + (
                ""
                if has_models
                else "No column of models or their sizes was found; give it as "
                "--size_column or --model_column. "
            )
            + "Distinguish repetitions in a seed column "
            "(--seed_column)"
            + (
                f", or choose by the columns in which they differ ("
                f"{', '.join(differing)}) with --where or --group_by."
                if differing
                else ", or remove one."
            )
        )


def _check_span(runs: Runs, name: str) -> None:
    span = runs.compute.max() / runs.compute.min()
    if span > _MIXED_UNITS_SPAN:
        raise ValueError(
            f"`compute` of {name} spans a factor of 10^{math.log10(span):.0f}: it "
            "looks like mixed units. Give all rows one unit."
        )
