"""Extrapolation of learning curves: the benchmark of Alabdulmohsin et al. 2022.

The table has the columns Domain, Task, Model, Seen Examples, Loss and Training (1: fit,
0: predict). Repository google-research/google-research, folder
revisiting_neural_scaling_laws/data (arXiv 2209.06640).
"""
# SPDX-License-Identifier: Apache-2.0

import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_scaling.naming import unknown_name_message
from vit_scaling.scaling.laws.alternative_laws import FORMS, fit_form
from vit_scaling.scaling.laws.columns import find_column
from vit_scaling.scaling.laws.row_filters import select_rows
from vit_scaling.scaling.laws.runs import Floats
from vit_scaling.scaling.laws.table_files import read_table
from vit_scaling.scaling.studies.fitted_law import FORM_NAMES
from vit_scaling.scaling.studies.results import records

if TYPE_CHECKING:
    import pandas as pd

_CURVE = ("Task", "Model")
_NUMBERS = ("Seen Examples", "Loss", "Training")


def read_curves(path: str | pathlib.Path, where: str = "") -> "pd.DataFrame":
    """Read a table of learning curves, its numbers converted.

    Args:
        path: A file with the benchmark's columns.
        where: Rows to keep, see `select_rows`.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: A column is missing, or a cell has no usable value; the message
            names the line.
    """
    import pandas as pd

    table = select_rows(read_table(path), where, str(path))
    names = {find_column(list(table.columns), name, "where", str(path)): name
             for name in (*_CURVE, *_NUMBERS)}  # fmt: skip
    table = table[list(names)].rename(columns=names)
    for name in _NUMBERS:
        numbers = pd.to_numeric(table[name], errors="coerce")
        is_bad = ~(numbers >= 0) if name == "Training" else ~(numbers > 0)
        if is_bad.any():
            line = table.index[is_bad][0]
            rule = "0 or 1" if name == "Training" else "a number above 0"
            raise ValueError(
                f"{path}, line {line}: column {name!r} must be {rule}; received "
                f"{table[name][line]!r}. Leave the row out with --where."
            )
        table[name] = numbers
    return table


def score_curves(
    table: "pd.DataFrame",
    forms: Sequence[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> "pd.DataFrame":
    """Return the root mean square log error of each form on each curve's held-out part.

    Args:
        table: From `read_curves`.
        forms: Keys of `FORM_NAMES`.
        progress: Called with the curves done and their number.

    Returns:
        A row per curve: "Task", "Model", "fitted", "held out", and per form its error
        and its standard error ("m1 ±", as the benchmark's README computes it). NaN
        where the curve has fewer points than the form has coefficients.
    """
    import pandas as pd

    for form in forms:
        if form not in FORM_NAMES:
            raise ValueError(unknown_name_message("law", form, FORM_NAMES))
    rows: list[dict[str, Any]] = []
    groups: Any = table.groupby(list(_CURVE), sort=True)
    for (task, model), curve in groups:
        fitted, hidden = curve[curve["Training"] == 1], curve[curve["Training"] == 0]
        row: dict[str, Any] = {"Task": task, "Model": model}
        row |= {"fitted": len(fitted), "held out": len(hidden)}
        for form in forms:
            row[form], row[f"{form} ±"] = _score(form, fitted, hidden)
        rows.append(row)
        progress(len(rows), groups.ngroups)
    return pd.DataFrame(rows)


def _score(
    form: str, fitted: "pd.DataFrame", hidden: "pd.DataFrame"
) -> tuple[float, float]:
    name = FORM_NAMES[form]
    if len(fitted) < len(FORMS[name].names) or not len(hidden):
        return float("nan"), float("nan")
    x, y = _points(fitted)
    law = fit_form(name, x, y, np.ones_like(x))
    new_x, new_y = _points(hidden)
    squares = (np.log(law.error_at(new_x)) - np.log(new_y)) ** 2
    mean = float(squares.mean())
    error = np.sqrt(mean + squares.std() / np.sqrt(len(squares))) - np.sqrt(mean)
    return float(np.sqrt(mean)), float(error)


def _points(rows: "pd.DataFrame") -> tuple[Floats, Floats]:
    return rows["Seen Examples"].to_numpy(float), rows["Loss"].to_numpy(float)


def summarize(scores: "pd.DataFrame", forms: Sequence[str]) -> "pd.DataFrame":
    """Return a row per form over the curves that all forms fit.

    Columns: "mean" and "median" of the curves' errors, and "best", the number of curves
    on which no other form is better.
    """
    import pandas as pd

    errors = scores[list(forms)].dropna()
    table = pd.DataFrame(
        {
            "mean": errors.mean(),
            "median": errors.median(),
            "best": [int((errors[f] <= errors.min(axis=1)).sum()) for f in forms],
        }
    )
    return table.rename_axis("law")


def add_published(
    scores: "pd.DataFrame", path: str | pathlib.Path
) -> "tuple[pd.DataFrame, list[str]]":
    """Add the columns of a table of published errors, matched by Task and Model.

    Args:
        scores: From `score_curves`.
        path: A file with the columns Task and Model, and one per law, such as the
            paper's Table 2 typed in as "m1", …, "m4".

    Returns:
        The scores with columns such as "m4 published", and the names of these columns.

    Raises:
        ValueError: Task or Model is missing, or no curve is in both tables.
    """
    import pandas as pd

    published = read_table(path)
    keys = {find_column(list(published.columns), name, "where", str(path)): name
            for name in _CURVE}  # fmt: skip
    published = published.rename(columns=keys)
    values = [name for name in published.columns if name not in _CURVE]
    for name in values:
        published[name] = pd.to_numeric(published[name], errors="coerce")
    renamed = {name: f"{name} published" for name in values}
    both = scores.merge(published.rename(columns=renamed), how="left", on=list(_CURVE))
    if not both[list(renamed.values())].notna().any(axis=None):
        raise ValueError(
            f"No curve of {path} has a Task and a Model of the benchmark's table. "
            "Write them as there, for example "
            f"{scores['Task'][0]} and {scores['Model'][0]}."
        )
    return both, list(renamed.values())


def run_benchmark(
    path: str | pathlib.Path,
    *,
    forms: Sequence[str] = tuple(FORM_NAMES),
    where: str = "",
    published: str | pathlib.Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Return the benchmark's result as `vit-scaling curve-benchmark --json` prints it.

    Args:
        path: The benchmark's file, as published.
        forms: Keys of `FORM_NAMES`.
        where: Rows to keep, such as "Model=ViT/B/16".
        published: Errors to print next to them, see `add_published`.
        progress: Called with the curves done and their number.

    Raises:
        FileNotFoundError: A file does not exist.
        ValueError: As `read_curves`, `score_curves` and `add_published`.
    """
    scores = score_curves(read_curves(path, where), forms, progress)
    names = list(forms)
    if published is not None:
        scores, added = add_published(scores, published)
        names += added
    return {
        "curves": records(scores),
        "overall": records(summarize(scores, names)),
        "formulas": {form: FORMS[FORM_NAMES[form]].formula for form in forms},
    }
