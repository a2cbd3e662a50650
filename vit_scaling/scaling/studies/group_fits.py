"""Fit every group of a table by one form: laws, surfaces, profiles."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vit_scaling.io_files import write_json
from vit_scaling.naming import unknown_name_message
from vit_scaling.scaling.laws.law_estimates import LawOptions
from vit_scaling.scaling.laws.runs import Runs
from vit_scaling.scaling.laws.surface_forms import SURFACES
from vit_scaling.scaling.studies.fitted_law import FORM_NAMES, FittedLaw
from vit_scaling.scaling.studies.fitted_sizes import envelope, isoflop
from vit_scaling.scaling.studies.fitted_surface import FittedSurface, fit_surface
from vit_scaling.scaling.studies.results import (
    Result,
    format_table,
    records,
    write_report,
)

FORMS = (*FORM_NAMES, *SURFACES, "isoflop", "envelope")


@dataclasses.dataclass(frozen=True)
class GroupOptions:
    """How all groups are fitted.

    Attributes:
        form: One of `FORMS`.
        law: Options of laws of compute; its resamples, level and seed hold for all.
        leave_out_largest: See `fit_surface`.
        tolerance: See `isoflop`.
    """

    form: str
    law: LawOptions
    leave_out_largest: int = 0
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(unknown_name_message("form", self.form, FORMS))
        if self.leave_out_largest and self.form not in SURFACES:
            raise ValueError(
                "leave_out_largest (--leave_out_largest) belongs to the forms "
                f"{', '.join(SURFACES)}; received form={self.form!r}."
            )

    def fit(self, runs: Runs) -> Result:
        """Fit the form to one group's runs."""
        law = self.law
        common = {"resamples": law.resamples, "level": law.level, "seed": law.seed}
        if self.form in SURFACES:
            return fit_surface(
                runs,
                form=self.form,
                leave_out_largest=self.leave_out_largest,
                **common,  # type: ignore[arg-type]
            )
        if self.form == "isoflop":
            return isoflop(runs, tolerance=self.tolerance, **common)  # type: ignore[arg-type]
        if self.form == "envelope":
            return envelope(runs, **common)  # type: ignore[arg-type]
        return FittedLaw(runs, law, self.form)


def fit_groups(
    groups: Mapping[str, Runs], fit: Callable[[Runs], Result]
) -> tuple[dict[str, Result], dict[str, str]]:
    """Fit each group; return the results, and why the other groups have none."""
    results, reasons = {}, {}
    for name, runs in groups.items():
        try:
            results[name] = fit(runs)
        except (ValueError, RuntimeError) as error:
            reasons[name] = str(error)
    return results, reasons


def describe(
    groups: Mapping[str, Runs],
    options: GroupOptions,
    *,
    budgets: Sequence[float] = (),
    device: str | None = None,
    output_dir: str | pathlib.Path | None = None,
) -> dict[str, Any]:
    """Fit every group and return what `vit-scaling fit --json` prints.

    Args:
        groups: Name to runs; "" is a table that is one group.
        options: How they are fitted.
        budgets: Compute to predict, in the runs' unit.
        device: Device on which a surface's budgets are turned into hours.
        output_dir: Write fit.json and report.html here.

    Returns:
        "groups": a list with each group's "name" and either its result or a "reason";
        "files": the paths written.
    """
    results, reasons = fit_groups(groups, options.fit)
    entries = []
    for name in groups:
        if name in reasons:
            entries.append({"name": name, "reason": reasons[name]})
            continue
        result = results[name]
        entry = {"name": name, **result.as_dict(), "answer": result.answer}
        if len(budgets):
            entry["requested"] = records(_predict(result, budgets, device))
        entries.append(entry)
    files: list[str] = []
    found = {"form": options.form, "groups": entries, "files": files}
    if output_dir is not None:
        folder = pathlib.Path(output_dir)
        report = write_report(results, folder / "report.html")
        files += [str(folder / "fit.json"), str(report)]
        write_json(folder / "fit.json", found)
    return found


def _predict(result: Result, budgets: Sequence[float], device: str | None) -> Any:
    if isinstance(result, FittedSurface):
        return result.optimal(budgets, device=device)
    if device is not None:
        raise ValueError(
            f"--device belongs to the forms {', '.join(SURFACES)}: it turns their "
            "compute into hours."
        )
    return result.predict(budgets)


def text_tables(
    entry: Mapping[str, Any],
) -> list[tuple[Sequence[str], Sequence[Sequence[str]]]]:
    """Return the tables of a group's entry as text, each a header and rows."""
    import pandas as pd

    names = ("parameters", "requested", "predictions", "optimal", "profiles")
    shown = [entry[name] for name in names if entry.get(name)]
    return [format_table(pd.DataFrame(rows)) for rows in shown]
