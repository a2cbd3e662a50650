"""Analyse a study in one call: law, intervals, predictions, tables, plots, report."""
# SPDX-License-Identifier: Apache-2.0

import collections
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_scaling.io_files import write_json
from vit_scaling.scaling.laws.bootstrap import Bootstrap
from vit_scaling.scaling.laws.extrapolation import Comparison, compare_laws
from vit_scaling.scaling.laws.findings import (
    find_bottlenecks,
    find_saturation,
    largest_data,
    sample_efficiency,
)
from vit_scaling.scaling.laws.frontier import frontier
from vit_scaling.scaling.laws.law_estimates import (
    LawEstimate,
    LawOptions,
    estimate_law,
)
from vit_scaling.scaling.laws.paper_results import paper_runs
from vit_scaling.scaling.laws.plot_style import save_figure
from vit_scaling.scaling.laws.power_law import COEFFICIENTS, Fit, prepare_runs
from vit_scaling.scaling.laws.predictions import (
    needed_compute,
    predict,
    predict_hidden_runs,
)
from vit_scaling.scaling.laws.row_reader import parse_quantity
from vit_scaling.scaling.laws.run_tables import Source
from vit_scaling.scaling.laws.runs import Runs, write_csv
from vit_scaling.scaling.studies.run_sources import runs_from
from vit_scaling.scaling.studies.vit_sizes import fill_sizes

_FRONTIER_FIELDS = (
    *("model", "data_size", "images_seen", "compute", "error", "source"),
)


def load_runs(source: Source, *, metric: str | None = None) -> Runs:
    """Return one metric's runs from "paper", a table's file or a folder.

    Args:
        source: As `runs_from` takes it.
        metric: The metric to keep; None: the only one.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: As `runs_from` and `Runs.of_metric`.
    """
    if source == "paper":
        return fill_sizes(paper_runs(metric or "imagenet_10shot"))
    return runs_from(source).of_metric(metric)


def parse_budgets(text: str) -> list[float]:
    """Return the numbers of "1e4,3e4"; suffixes K, M, B are understood."""
    return [parse_quantity(part) for part in text.split(",") if part.strip()]


def analyse(
    runs: Runs,
    options: LawOptions | None = None,
    *,
    budgets: Sequence[float] = (),
    errors: Sequence[float] = (),
    compare: bool = False,
    output_dir: str | pathlib.Path | None = None,
) -> dict[str, Any]:
    """Fit the law, assess it and optionally write everything into a folder.

    Args:
        runs: Runs of one metric.
        options: How the law is fitted; None: the defaults.
        budgets: Compute to predict; ten times the largest run is always predicted.
        errors: Errors (or losses) whose compute to find.
        compare: Also rank the other laws by extrapolation (takes seconds).
        output_dir: Write law.json, frontier.csv, frontier.png, frontier.svg and
            report.html here; these need matplotlib.

    Returns:
        The object that `--json` prints: "a", "b", "c", "d" (None unless converged),
        "converged", "reason", "intervals", "rms_log_error" etc. If the runs are too few
        to resample, "intervals" is None; if too few to compare laws, "laws" is empty.
        "notes" says so, and the fit remains valid.
    """
    options = options or LawOptions()
    law = estimate_law(runs, options)
    fit, boot, notes = law.fit, law.bootstrap, [*law.notes]
    laws: list[Comparison] = []
    hidden = predict_hidden_runs(runs, law, seed=options.seed) if fit.converged else []
    best = frontier(prepare_runs(runs, loss=options.loss), slack=options.slack)
    if compare:
        try:
            laws = compare_laws(runs, slack=options.slack)
        except ValueError as error:
            notes.append(f"Laws were not compared. {error}")
    result = {
        **_summary(runs, law, best),
        "notes": [*(boot.notes() if boot else []), *notes],
        "predictions": _predictions(runs, fit, boot, budgets),
        "needed_compute": [
            dataclasses.asdict(row) for row in needed_compute(boot or fit.law, errors)
        ]
        if fit.converged
        else [],
        "frontier": [
            {name: getattr(run, name) for name in _FRONTIER_FIELDS} for run in best
        ],
        "hindcasts": [
            {**dataclasses.asdict(row), "relative_error": row.relative_error}
            for row in hidden
        ],
        "laws": [dataclasses.asdict(row) for row in laws],
        "reading": _findings(runs, law),
        "files": [],
    }
    if output_dir is not None:
        result["files"] = _write_files(
            runs, law, best, result, pathlib.Path(output_dir)
        )
    return result


def _summary(runs: Runs, estimate: LawEstimate, best: Runs) -> dict[str, Any]:
    fit, boot = estimate.fit, estimate.bootstrap
    law = dataclasses.asdict(fit.law) if fit.converged else {}
    return {
        "metric": runs.metrics[0],
        "target": runs.target,
        "table": list(runs.notes),
        "runs": len(runs),
        "frontier_runs": len(best),
        "method": estimate.method,
        "fitted_runs": len(fit.points),
        "noise": estimate.noise,
        "compute_unit": runs.compute_unit,
        "converged": fit.converged,
        "reason": fit.reason,
        **{name: law.get(name) for name in COEFFICIENTS},
        "rms_log_error": fit.rms_log_error if fit.converged else None,
        "level": boot.level if boot else None,
        "intervals": boot.intervals() if boot else None,
        "correlations": boot.correlations() if boot else None,
        "reference": _reference(fit, boot),
    }


def _reference(fit: Fit, boot: Bootstrap | None) -> dict[str, Any] | None:
    """Return the law's error in the middle of its points, which is a's readable form.

    a is the error at one unit of compute where that is far from every run.
    """
    if boot is None:
        return None
    middle = float(np.exp(np.log(fit.points.compute).mean()))
    (row,) = predict(boot, [middle])
    return {"compute": middle, "error": row.error, "interval": row.interval}


def _predictions(
    runs: Runs, fit: Fit, boot: Bootstrap | None, budgets: Sequence[float]
) -> list[dict[str, Any]]:
    if not fit.converged:
        return []
    compute = sorted({*budgets, 10 * float(runs.compute.max())})
    return [dataclasses.asdict(row) for row in predict(boot or fit.law, compute)]


def _findings(runs: Runs, law: LawEstimate) -> dict[str, Any]:
    fit, averaged = law.fit, runs.averaged_over_seeds()
    lengths = collections.Counter(run.model for run in averaged)
    series = [run for run in averaged if lengths[run.model] > 1]
    efficiency = []
    if series and all(run.images_seen is not None for run in runs):
        largest = largest_data(runs)
        rows = tuple(run for run in series if run.data_size == largest)
        efficiency = sample_efficiency(Runs(rows), noise=law.noise) if rows else []
    return {
        "bottlenecks": [
            dataclasses.asdict(row)
            for row in find_bottlenecks(averaged, noise=law.noise)
        ],
        "sample_efficiency": [
            {**dataclasses.asdict(row), "at_most": sorted(row.at_most)}
            for row in efficiency
        ],
        "saturation": dataclasses.asdict(find_saturation(fit.law, runs.compute))
        if fit.converged
        else None,
    }


def _write_files(
    runs: Runs,
    law: LawEstimate,
    best: Runs,
    result: Mapping[str, Any],
    folder: pathlib.Path,
) -> list[str]:
    from vit_scaling.scaling.studies import paper_figures, report

    fit, boot = law.fit, law.bootstrap
    law_file, table = folder / "law.json", folder / "frontier.csv"
    write_json(law_file, result)
    write_csv(best, table)
    plots = save_figure(
        paper_figures.study_figure(runs, fit, boot), folder / "frontier"
    )
    page = folder / "report.html"
    report.write_report(result, plots[0], page)
    return [str(path) for path in (law_file, table, *plots, page)]
