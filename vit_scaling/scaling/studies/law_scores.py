"""How well each law predicts the largest runs from the others, with uncertainty."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vit_scaling.scaling.laws.extrapolation import (
    HELD_OUT,
    Comparison,
    compare_laws,
    verdict,
)
from vit_scaling.scaling.laws.runs import Runs
from vit_scaling.scaling.studies.results import Report, Section, new_axes
from vit_scaling.scaling.studies.vit_sizes import fill_sizes

if TYPE_CHECKING:
    import pandas as pd

_MISSING = (float("nan"), float("nan"))


class LawScores(Report):
    """Laws ranked by extrapolation.

    Attributes:
        runs: The runs.
        rows: A `Comparison` per law, the best first.
        table: The same as a DataFrame.
    """

    def __init__(self, runs: Runs, rows: Sequence[Comparison]) -> None:
        """Wrap a comparison; see `score`."""
        self.runs, self.rows = runs, rows
        self.table = _score_table(rows)

    @property
    def answer(self) -> str:
        """Which law is best, and which ones the data do not tell apart from it."""
        return verdict(self.rows)

    @property
    def notes(self) -> Sequence[str]:
        """How the table was read."""
        return self.runs.notes

    @property
    def sections(self) -> Sequence[Section]:
        """The ranking."""
        note = (
            "Root mean square of log(law/error) on the hidden runs, its 95 % interval "
            "from resampled runs, and the interval of its ratio to the best law's."
        )
        return [Section("Extrapolation", self.table, [note])]

    def plot(self, ax: Any = None) -> Any:
        """Draw each law's extrapolation error and its interval; return the Axes."""
        ax = new_axes(ax)
        for place, row in enumerate(reversed(self.rows)):
            colour = "#888888" if row.is_worse else "#4477aa"
            ax.plot(row.extrapolation_error, place, "o", color=colour)
            if row.interval:
                ax.hlines(place, *row.interval, color=colour)
        ax.set_yticks(range(len(self.rows)), [row.name for row in reversed(self.rows)])
        ax.set_xscale("log")
        ax.set_xlabel("rms log error on hidden runs (grey: worse than the best)")
        return ax

    def as_dict(self) -> dict[str, Any]:
        """Return the ranking in JSON's types."""
        rows = [dataclasses.asdict(r) | {"is_worse": r.is_worse} for r in self.rows]
        return {"kind": "scores", "verdict": self.answer, "laws": rows}


def _score_table(rows: Sequence[Comparison]) -> "pd.DataFrame":
    import pandas as pd

    table = pd.DataFrame(
        {
            "law": [row.name for row in rows],
            "formula": [row.formula for row in rows],
            "extrapolation": [row.extrapolation_error for row in rows],
            "fit": [row.fit_error for row in rows],
        }
    )
    table[["low", "high"]] = [row.interval or _MISSING for row in rows]
    ratios = [row.ratio_to_best or _MISSING for row in rows]
    table[["ratio_low", "ratio_high"]] = ratios
    return table


def score(
    runs: Runs,
    *,
    held_out: float | Sequence[float] = HELD_OUT,
    laws: Sequence[str] | None = None,
    resamples: int = 30,
    seed: int = 0,
) -> LawScores:
    """Rank laws by how well they predict the largest runs from the others.

    Args:
        runs: Runs of one metric; surfaces take part if all sizes and examples are
            known.
        held_out: Fraction, or fractions, of the frontier to hide, its most expensive
            runs.
        laws: Names of laws; None: all.
        resamples: Resamples of the runs for the uncertainty.
        seed: Seed of the resampling.

    Raises:
        ValueError: The frontier has too few runs, or a name is unknown.
    """
    runs = fill_sizes(runs)
    rows = compare_laws(
        runs, held_out=held_out, names=laws, resamples=resamples, seed=seed
    )
    return LawScores(runs, rows)
