"""Runs from any table, with the sizes and FLOPs of named ViT shapes."""
# SPDX-License-Identifier: Apache-2.0

import functools

from typing_extensions import Unpack

from vit_scaling.scaling.laws.columns import ColumnNames
from vit_scaling.scaling.laws.paper_results import paper_runs
from vit_scaling.scaling.laws.row_reader import TableOptions
from vit_scaling.scaling.laws.run_tables import Source
from vit_scaling.scaling.laws.run_tables import grouped_runs_from as read_groups
from vit_scaling.scaling.laws.runs import Runs
from vit_scaling.scaling.studies.vit_sizes import (
    IMAGE_SIZE,
    fill_sizes,
    training_flops,
)

PAPER = "paper"


def grouped_runs_from(
    source: Source,
    /,
    group_by: str = "",
    *,
    unit: str | None = None,
    error_unit: str | None = None,
    where: str = "",
    image_size: int = IMAGE_SIZE,
    **columns: Unpack[ColumnNames],
) -> dict[str, Runs]:
    """Read one `Runs` per value of the columns `group_by`; see `runs_from`.

    Args:
        source: As `runs_from`.
        group_by: Names of columns, separated by commas; "" makes one group, "".
        unit: As `runs_from`.
        error_unit: As `runs_from`.
        where: As `runs_from`.
        image_size: As `runs_from`.
        **columns: As `runs_from`.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: As `runs_from`.
    """
    options = TableOptions(
        unit, error_unit, functools.partial(training_flops, image_size=image_size)
    )
    groups = read_groups(
        source, group_by, where=where, options=options, columns=columns
    )
    return {name: fill_sizes(runs, image_size) for name, runs in groups.items()}


def runs_from(
    source: Source,
    /,
    *,
    unit: str | None = None,
    error_unit: str | None = None,
    where: str = "",
    image_size: int = IMAGE_SIZE,
    **columns: Unpack[ColumnNames],
) -> Runs:
    """Read runs from a table; see `laws.run_tables.runs_from` for its rules.

    Args:
        source: A DataFrame; a CSV, JSON lines or Parquet file; the folder of a sweep or
            of training runs; a list of runs' folders; or "paper" (its 10-shot runs on
            ImageNet, see `paper_runs`).
        unit: Unit of the compute column, such as "flops", "pf_days" or "a100_hours";
            None reads it from the column's name or cells.
        error_unit: "fraction" or "percent", of errors and accuracies.
        where: Rows to keep, such as "dataset=imagenet1k and params>=1e8".
        image_size: Side in pixels of the images of named ViT shapes.
        **columns: Names of the columns: `compute`, one of `loss`, `error`, `accuracy`
            and `perplexity`, `size`, `examples`, `model`, `data_size`, `metric`,
            `seed`, `run`, `weight`, `compute_unit`, `source`.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: A column is missing or a cell cannot be used.
    """
    if isinstance(source, str) and source == PAPER:
        return fill_sizes(paper_runs(), image_size)
    groups = grouped_runs_from(
        source,
        unit=unit,
        error_unit=error_unit,
        where=where,
        image_size=image_size,
        **columns,
    )
    return groups[""]
