"""Select and group a table's rows by conditions such as "dataset=imagenet1k"."""
# SPDX-License-Identifier: Apache-2.0

import operator
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vit_scaling.naming import did_you_mean
from vit_scaling.scaling.laws.columns import find_column

if TYPE_CHECKING:
    import pandas as pd

_OPERATORS = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_CONDITION = re.compile(
    rf"\s*(?P<column>.+?)\s*(?P<operator>{'|'.join(_OPERATORS)})\s*(?P<value>.+?)\s*"
)
_SHOWN_VALUES = 12


def select_rows(table: "pd.DataFrame", where: str, source: str) -> "pd.DataFrame":
    """Return the rows that meet all conditions.

    Args:
        table: Any table.
        where: Conditions joined by " and ", each COLUMN, =, !=, <, <=, > or >=, and a
            value, in quotes if it contains " and ". "" keeps all rows.
        source: The table's name, for messages.

    Raises:
        ValueError: A condition cannot be read, a column does not exist, or no row
            meets a condition.
    """
    for condition in re.split(r"\s+and\s+(?=(?:[^\"']|\"[^\"]*\"|'[^']*')*$)", where):
        if condition.strip():
            table = _select(table, condition, source)
    return table


def _select(table: "pd.DataFrame", condition: str, source: str) -> "pd.DataFrame":
    import pandas as pd

    match = _CONDITION.fullmatch(condition)
    if match is None:
        raise ValueError(
            f"The condition {condition!r} of --where cannot be read. Write "
            'COLUMN=VALUE, or !=, <, <=, > or >=, joined by "and".'
        )
    header = [str(column) for column in table.columns]
    name = find_column(header, match["column"], "where", source)
    column, text = table.set_axis(header, axis=1)[name], match["value"].strip("\"'")
    compare = _OPERATORS[match["operator"]]
    numbers, value = pd.to_numeric(column, errors="coerce"), _number(text)
    if value is not None and numbers.notna().any():
        kept = compare(numbers, value)
    elif compare in (operator.eq, operator.ne):
        kept = compare(column.astype(str).str.strip(), text)
    else:
        raise ValueError(
            f"Column {name!r} of {source} and {text!r} are not numbers: --where can "
            "compare them with = or != only."
        )
    if not kept.any():
        values = list(dict.fromkeys(column.astype(str)))
        shown = ", ".join(values[:_SHOWN_VALUES])
        more = ", …" if len(values) > _SHOWN_VALUES else ""
        raise ValueError(
            f"No row of {source} has {condition.strip()} (--where)."
            f"{did_you_mean(text, values)} Values of {name!r}: {shown}{more}."
        )
    return table[kept]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def split_groups(
    table: "pd.DataFrame", group_by: str, source: str
) -> "Iterator[tuple[str, pd.DataFrame]]":
    """Yield (name, rows) for every combination of values of the columns `group_by`.

    Args:
        table: Any table.
        group_by: Names of columns, separated by commas.
        source: The table's name, for messages.

    Raises:
        ValueError: A column does not exist.
    """
    header = [str(column) for column in table.columns]
    names = [find_column(header, part.strip(), "group_by", source)
             for part in group_by.split(",") if part.strip()]  # fmt: skip
    table = table.set_axis(header, axis=1)
    groups: Any = table.groupby(names, sort=False)
    for values, rows in groups:
        yield ", ".join(map(str, values)), rows
