"""What every fitted result can do: tables, a figure, an HTML report, JSON."""
# SPDX-License-Identifier: Apache-2.0

import abc
import base64
import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jinja2

from vit_scaling.io_files import json_text, to_json_types, write_text
from vit_scaling.scaling.laws.plot_style import make_figure

if TYPE_CHECKING:
    import pandas as pd

TEMPLATE = pathlib.Path(__file__).with_name("results.html")


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report: its title, a table, and sentences below it."""

    title: str
    table: "pd.DataFrame"
    notes: Sequence[str] = ()


class Report(abc.ABC):
    """A result with tables, a figure and an answer in words."""

    @property
    @abc.abstractmethod
    def answer(self) -> str:
        """The result in one paragraph."""

    @property
    @abc.abstractmethod
    def sections(self) -> Sequence[Section]:
        """The tables of the report, in order."""

    @abc.abstractmethod
    def plot(self, ax: Any = None) -> Any:
        """Draw the result; return Matplotlib's Axes.

        Args:
            ax: Axes to draw into; None: those of a new figure.
        """

    @abc.abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """Return the result in JSON's types."""

    @property
    def notes(self) -> Sequence[str]:
        """Remarks about the data and the fit, in sentences."""
        return ()

    def to_json(self) -> str:
        """Return the result as a JSON object."""
        return json_text(self.as_dict())

    def report(self, path: str | pathlib.Path) -> pathlib.Path:
        """Write one self-contained HTML page; return its path."""
        return write_report({"": self}, path)


class Result(Report):
    """A fitted law, with predictions."""

    @abc.abstractmethod
    def predict(self, compute: Any) -> "pd.DataFrame":
        """Return the prediction for each budget, in the runs' unit."""


def new_axes(ax: Any) -> Any:
    """Return `ax`, or the axes of a new figure that pyplot shows."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt  # pip install "vit_scaling[plots]"

    return plt.subplots(figsize=(7, 5), layout="constrained")[1]


def write_report(
    results: Mapping[str, Report], path: str | pathlib.Path, *, title: str = ""
) -> pathlib.Path:
    """Write one page about several results, such as one per group of a table.

    Args:
        results: Heading to result; figures are drawn with Matplotlib.
        path: The HTML file.
        title: The page's title.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["text_table"] = format_table
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    parts = [
        {"heading": heading, "result": result, "figure": _figure(result)}
        for heading, result in results.items()
    ]
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, template.render(parts=parts, title=title or "Scaling law") + "\n")
    return path


def _figure(result: Report) -> str:
    """Return the result's figure as a PNG in a data URL, some 60 KB."""
    figure, panels = make_figure([["result"]], size=(8.5, 5.2))
    result.plot(ax=panels["result"])
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def an(noun: str) -> str:
    """Return "an error", "a loss"."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def format_cell(value: Any) -> str:
    """Return a table's cell as text: four digits, empty for missing values."""
    if value is None or value != value:  # NaN differs from itself.
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def format_table(table: "pd.DataFrame") -> tuple[list[str], list[list[str]]]:
    """Return the header and the cells of a table as text, a named index first."""
    table = with_index_as_column(table)
    rows = [[format_cell(v) for v in row] for row in table.itertuples(index=False)]
    return [str(name) for name in table.columns], rows


def with_index_as_column(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the table with a named index as its first column."""
    return table if table.index.name is None else table.reset_index()


def records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return a table's rows as dictionaries of JSON's types; NaN becomes None."""
    rows = with_index_as_column(table).to_dict("records")
    return [to_json_types(row) for row in rows]


def interval_table(
    values: Mapping[str, float], intervals: Mapping[str, Sequence[float]]
) -> "pd.DataFrame":
    """Return a row per coefficient, with columns "value", "low" and "high"."""
    import pandas as pd

    nothing = (float("nan"), float("nan"))
    rows = [(value, *intervals.get(name, nothing)) for name, value in values.items()]
    index = pd.Index(list(values), name="coefficient")
    return pd.DataFrame(rows, index=index, columns=["value", "low", "high"])
