"""A law of compute fitted to runs: coefficients, predictions, figure, report (§2.2)."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vit_scaling.naming import unknown_name_message
from vit_scaling.scaling.laws.alternative_laws import FORMS, LawFit, fit_form
from vit_scaling.scaling.laws.batched_fit import Loss
from vit_scaling.scaling.laws.bootstrap import Bootstrap, draw_counts
from vit_scaling.scaling.laws.frontier import frontier, frontier_mask
from vit_scaling.scaling.laws.law_estimates import LawOptions, estimate_law
from vit_scaling.scaling.laws.power_law import (
    COEFFICIENTS,
    Fit,
    hint_of_rising_error,
    prepare_runs,
)
from vit_scaling.scaling.laws.predictions import predict
from vit_scaling.scaling.laws.runs import Floats, Runs
from vit_scaling.scaling.studies.plots import draw_law, legend_handles
from vit_scaling.scaling.studies.results import (
    Result,
    Section,
    interval_table,
    new_axes,
    records,
)

if TYPE_CHECKING:
    import pandas as pd

PAPER = "paper"
FORM_NAMES = {
    PAPER: "with floor and shift (the paper)",
    "m1": "power law (M1)",
    "m2": "with floor (M2)",
    "shift": "with shift",
    "m3": "M3",
    "m4": "M4",
    "bnsl": "broken (BNSL)",
}


class FittedLaw(Result):
    """A law of compute, fitted to the frontier of runs.

    Attributes:
        runs: The runs that were given.
        points: Their frontier.
        form: Key of `FORM_NAMES`.
        options: How it was fitted.
        formula: The law as text.
        parameters: DataFrame with a row per coefficient, columns "value", "low" and
            "high"; the interval is missing if the runs are too few to resample.
        level: Nominal coverage of the intervals.
    """

    def __init__(
        self, runs: Runs, options: LawOptions | None = None, form: str = PAPER
    ) -> None:
        """Fit the law; see `fit`.

        Raises:
            ValueError: As `estimate_law`, or the form is unknown or has no such loss.
            RuntimeError: The fit did not converge.
        """
        self.runs, self.options, self.form = runs, options or LawOptions(), form
        if form not in FORM_NAMES:
            raise ValueError(unknown_name_message("law", form, FORM_NAMES))
        loss = self.options.loss
        if form != PAPER and (loss.scale, loss.robust) != ("log", None):
            raise ValueError(
                "Only form='paper' has other losses than the squared log error; "
                f"received form={form!r}, loss={loss.scale!r}, "
                f"robust={loss.robust!r} (--form, --loss, --robust)."
            )
        self.level = self.options.level
        self.formula = FORMS[FORM_NAMES[form]].formula
        self._notes: list[str] = []
        self._fit: Fit | None = None
        self._bootstrap: Bootstrap | None = None
        self._form: LawFit | None = None
        self._samples: list[LawFit] = []
        if form == PAPER:
            self._fit_paper()
        else:
            self._fit_form()

    def _fit_paper(self) -> None:
        options = self.options
        estimate = estimate_law(self.runs, options)
        self._fit, self._bootstrap = estimate.fit, estimate.bootstrap
        law = self._fit.law
        runs = prepare_runs(self.runs, loss=options.loss)
        self.points = frontier(runs, slack=options.slack)
        self._notes += [*(self._bootstrap.notes() if self._bootstrap else [])]
        self._notes += estimate.notes
        values = {name: getattr(law, name) for name in COEFFICIENTS}
        ends = self._bootstrap.intervals() if self._bootstrap else {}
        self.parameters = interval_table(values, ends)

    def _fit_form(self) -> None:
        name = FORM_NAMES[self.form]
        runs = prepare_runs(self.runs, loss=self.options.loss)
        runs = runs.take(np.lexsort((runs.error, runs.compute)))
        self.points = points = frontier(runs, slack=self.options.slack)
        needed = len(FORMS[name].names) + 1
        if len(points) < needed:
            raise ValueError(
                f"Too few points: {self.formula} has {needed - 1} coefficients, so it "
                f"needs {needed} runs on the frontier; {len(points)} of {len(runs)} "
                "are."
                + (
                    hint_of_rising_error(runs)
                    or " Keep near misses with slack=0.01 (--slack)."
                )
            )
        fit = fit_form(name, points.compute, points.error, points.weight)
        if not fit.converged:
            raise RuntimeError("The fit did not converge: no minimum was found.")
        self._form = fit
        counts = draw_counts(runs.clusters, self.options.resamples, self.options.seed)
        kept = frontier_mask(runs.error, counts, slack=self.options.slack)
        for mask, count in zip(kept, counts, strict=True):
            if mask.sum() >= needed:
                drawn = runs.compute[mask], runs.error[mask]
                weight = (count * runs.weight)[mask]
                self._samples.append(fit_form(name, *drawn, weight, start=fit))
        if len(self._samples) < max(20, self.options.resamples / 2):
            self._samples = []
            self._notes.append(
                "There are no intervals: the runs are too few to resample."
            )
        table = {key: self._quantiles([s.values[key] for s in self._samples])
                 for key in fit.values if self._samples}  # fmt: skip
        self.parameters = interval_table(fit.values, table)

    def _quantiles(self, samples: npt.ArrayLike) -> Any:
        tail = 50 * (1 - self.level)
        return np.percentile(np.asarray(samples, float), [tail, 100 - tail], axis=0)

    @property
    def has_intervals(self) -> bool:
        """Whether the runs were enough to resample."""
        return self._bootstrap is not None or bool(self._samples)

    def error_at(self, compute: npt.ArrayLike) -> Floats:
        """Return the error or loss at some compute, of its shape."""
        law = self._fit.law if self._fit is not None else self._form
        assert law is not None  # noqa: S101  (one of them was fitted)
        return law.error_at(np.asarray(compute, float))

    def band(self, compute: npt.ArrayLike) -> Floats:
        """Return the interval of the law, shape (2, *compute).

        Raises:
            RuntimeError: There are no intervals.
        """
        if self._bootstrap is not None:
            return self._bootstrap.band(compute)
        if not self._samples:
            raise RuntimeError("There are no intervals: the runs are too few.")
        compute = np.atleast_1d(np.asarray(compute, float))
        curves = [sample.error_at(compute) for sample in self._samples]
        return np.asarray(self._quantiles(curves))

    def predict(self, compute: npt.ArrayLike) -> "pd.DataFrame":
        """Return the law at new budgets.

        Args:
            compute: One budget or several, in the runs' unit.

        Returns:
            Columns "compute", "error" or "loss", "low" and "high" of the law, and, for
            the paper's form, "run_low" and "run_high" of one new run.

        Raises:
            ValueError: A budget is not above 0.
        """
        import pandas as pd

        budgets = np.atleast_1d(np.asarray(compute, float))
        if not (np.isfinite(budgets).all() and (budgets > 0).all()):
            raise ValueError(f"A budget must be above 0; received {compute!r}.")
        table = pd.DataFrame(
            {"compute": budgets, self.runs.target: self.error_at(budgets)}
        )
        if self.has_intervals:
            table["low"], table["high"] = self.band(budgets)
        if self._bootstrap is not None:
            ends = [row.run_interval for row in predict(self._bootstrap, list(budgets))]
            table[["run_low", "run_high"]] = ends
        return table

    @property
    def notes(self) -> Sequence[str]:
        """How the table was read, and remarks about the fit."""
        return [*self.runs.notes, *self._notes]

    @property
    def answer(self) -> str:
        """The law and its prediction at ten times the largest run, in words."""
        row = self.predict(10 * self.runs.compute.max()).iloc[0]
        reach = ""
        if self.has_intervals:
            reach = f" ({row['low']:.4g} to {row['high']:.4g}, {self.level:.0%})"
        values = ", ".join(
            f"{k} = {v:.4g}" for k, v in self.parameters["value"].items()
        )
        return (
            f"{self.runs.metrics[0]}: E = {self.formula} with {values}, C in "
            f"{self.runs.unit.label}; {len(self.points)} of {len(self.runs)} runs are "
            f"on the frontier. At ten times the largest compute, {row['compute']:.3g} "
            f"{self.runs.unit.label}, the {self.runs.target} is "
            f"{row[self.runs.target]:.4g}{reach}."
        )

    @property
    def sections(self) -> Sequence[Section]:
        """Coefficients, predictions and the frontier."""
        import pandas as pd

        rows = [(r.compute, r.error, r.model, r.source) for r in self.points]
        columns = ["compute", self.runs.target, "model", "source"]
        budgets = self.runs.compute.max() * np.array([1, 3, 10])
        unit = f"Compute in {self.runs.unit.label}."
        return [
            Section(f"Law: E = {self.formula}", self.parameters, [unit]),
            Section("Predictions", self.predict(budgets), [unit]),
            Section("Frontier", pd.DataFrame(rows, columns=columns), [unit]),
        ]

    def plot(self, ax: Any = None) -> Any:
        """Draw runs, law and interval on log axes; return the Axes."""
        ax = new_axes(ax)
        law = self._fit.law if self._fit is not None else self
        draw_law(ax, self.runs, law, self if self.has_intervals else None)
        handles = legend_handles([ax], self.runs)
        ax.legend(handles=handles, frameon=False, fontsize=8, loc="lower left")
        return ax

    def get_params(self) -> dict[str, Any]:
        """Return the settings of the fit."""
        options = dataclasses.asdict(self.options)
        loss = options.pop("loss")
        return {"form": self.form, **options, "loss": loss.pop("scale"), **loss}

    def as_dict(self) -> dict[str, Any]:
        """Return coefficients, intervals and predictions in JSON's types."""
        budgets = self.runs.compute.max() * np.array([1, 3, 10])
        return {
            "kind": "law",
            "form": self.form,
            "formula": self.formula,
            "metric": self.runs.metrics[0],
            "target": self.runs.target,
            "compute_unit": self.runs.compute_unit,
            "runs": len(self.runs),
            "frontier_runs": len(self.points),
            "level": self.level if self.has_intervals else None,
            "parameters": records(self.parameters),
            "predictions": records(self.predict(budgets)),
            "settings": self.get_params(),
            "notes": list(self.notes),
        }


def fit(
    runs: Runs,
    *,
    form: str = PAPER,
    method: str = "auto",
    loss: str = "log",
    robust: str | None = None,
    slack: float = 0.0,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> FittedLaw:
    """Fit a law of compute to the frontier of runs.

    Args:
        runs: Runs of one metric, from `runs_from`.
        form: "paper" for E = a (C + d)^-b + c, or "m1", "m2", "shift", "m3", "m4",
            "bnsl".
        method: How the paper's form is fitted: to the "frontier", with intervals that
            allow for noise ("fission"), or to all runs moved to the best size by a
            "surface"; "auto" chooses by the number of runs and the columns.
        loss: "log" or "linear" residuals.
        robust: None, "huber" or "soft_l1".
        slack: Also keep runs this fraction above the frontier.
        resamples: Bootstraps for the intervals.
        level: Their coverage.
        seed: Seed of the resampling.

    Raises:
        ValueError: There are too few runs, several metrics, or an unknown name.
        RuntimeError: The fit did not converge.

    Example:
        >>> from vit_scaling import scaling
        >>> law = scaling.fit(scaling.paper_runs("imagenet_10shot"))
        >>> float(round(law.parameters.loc["b", "value"], 2))
        0.33
    """
    options = LawOptions(
        method=method,
        loss=Loss(loss, robust),
        slack=slack,
        resamples=resamples,
        level=level,
        seed=seed,
    )
    return FittedLaw(runs, options, form)
