"""A study from its runs to its law, tables, figures and report, in one call."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from vit_scaling.io_files import to_json_types
from vit_scaling.scaling.laws.alternative_laws import compare_laws
from vit_scaling.scaling.laws.bootstrap import Bootstrap, bootstrap
from vit_scaling.scaling.laws.findings import (
    bottlenecks,
    largest_data,
    sample_efficiency,
    saturation,
)
from vit_scaling.scaling.laws.paper_results import paper_runs
from vit_scaling.scaling.laws.power_law import COEFFICIENTS, Fit, fit_power_law
from vit_scaling.scaling.laws.predictions import (
    Hindcast,
    hindcasts,
    predict,
    predict_without_interval,
)
from vit_scaling.scaling.laws.run_tables import Columns, quantity, read_runs
from vit_scaling.scaling.laws.runs import Runs, write_csv


def load(
    source: str,
    *,
    metric: str | None = None,
    columns: Columns | None = None,
    compute_unit: str | None = None,
    error_unit: str = "fraction",
) -> Runs:
    """Return one metric's runs from "paper", a CSV file or a sweep's folder.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As `paper_runs`, `read_csv` and `Runs.of_metric`.
    """
    if source == "paper":
        return paper_runs(metric or "imagenet_10shot")
    runs = read_runs(
        source, columns=columns, compute_unit=compute_unit, error_unit=error_unit
    )
    return runs.of_metric(metric)


def budgets(text: str) -> list[float]:
    """Return the numbers of "1e4,3e4"; suffixes K, M, B are understood."""
    return [quantity(part) for part in text.split(",") if part.strip()]


def analyse(
    runs: Runs,
    *,
    loss: str = "log",
    robust: str | None = None,
    robust_scale: float = 0.02,
    slack: float = 0.0,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    budgets: Sequence[float] = (),
    compare: bool = False,
    output_dir: str | pathlib.Path | None = None,
) -> dict[str, Any]:
    """Fit the law, judge it and, if asked, write everything into a folder.

    Args:
        runs: Runs of one metric.
        loss: See `fit_power_law`, as `robust`, `robust_scale` and `slack`.
        robust: None, "huber" or "soft_l1".
        robust_scale: Residual at which the robust loss leaves the square.
        slack: See `frontier`.
        resamples: Bootstraps of the runs.
        level: Coverage of the intervals.
        seed: Of the bootstrap.
        budgets: Compute to predict; ten times the largest run is always predicted.
        compare: Also rank the other laws by extrapolation (some seconds).
        output_dir: Write law.json, frontier.csv, frontier.png, frontier.svg and
            report.html here; these need matplotlib, and plotly for the report.

    Returns:
        What `--json` prints: "a", "b", "c", "d" (None unless converged), "converged",
        "reason", "intervals", "rms_log_error", … "intervals" is None where the runs
        are too few to resample, and "laws" empty where they are too few to compare:
        "notes" says so, and the fit stands.
    """
    options: dict[str, Any] = {
        "loss": loss,
        "robust": robust,
        "robust_scale": robust_scale,
        "slack": slack,
    }
    fit = fit_power_law(runs, **options)
    boot, notes = None, []
    if fit.converged:
        try:
            boot = bootstrap(runs, fit, resamples=resamples, level=level, seed=seed)
        except RuntimeError as error:  # The fit itself stands.
            notes.append(f"There are no intervals. {error}")
    result = _summary(runs, fit, boot, budgets)
    result["hindcasts"] = (
        [_hindcast_row(h) for h in hindcasts(runs, seed=seed, **options)]
        if fit.converged
        else []
    )
    result["laws"] = []
    if compare:
        try:
            laws = compare_laws(runs, slack=slack)
            result["laws"] = [dataclasses.asdict(row) for row in laws]
        except ValueError as error:
            notes.append(f"Laws were not compared. {error}")
    result["notes"] += notes
    result["reading"] = _reading(runs, fit)
    result["files"] = []
    if output_dir is not None:
        result["files"] = _write(runs, fit, boot, result, pathlib.Path(output_dir))
    return result


def _summary(
    runs: Runs, fit: Fit, boot: Bootstrap | None, budgets: Sequence[float]
) -> dict[str, Any]:
    law = dataclasses.asdict(fit.law) if fit.converged else {}
    ahead = sorted({*budgets, 10 * float(runs.compute.max())})
    return {
        "metric": runs.metrics[0],
        "runs": len(runs),
        "frontier_runs": len(fit.points),
        "compute_unit": runs.compute_unit,
        "converged": fit.converged,
        "reason": fit.reason,
        **{name: law.get(name) for name in COEFFICIENTS},
        "rms_log_error": fit.rms_log_error if fit.converged else None,
        "level": boot.level if boot else None,
        "intervals": boot.intervals() if boot else None,
        "correlations": boot.correlations() if boot else None,
        "notes": boot.notes() if boot else [],
        "predictions": _predictions(fit, boot, ahead),
        "frontier": [
            {
                "model": run.model,
                "data_size": run.data_size,
                "images_seen": run.images_seen,
                "compute": run.compute,
                "error": run.error,
                "source": run.source,
            }
            for run in fit.points
        ],
    }


def _predictions(
    fit: Fit, boot: Bootstrap | None, ahead: Sequence[float]
) -> list[dict[str, Any]]:
    if not fit.converged:
        return []
    told = predict(boot, ahead) if boot else predict_without_interval(fit.law, ahead)
    return [dataclasses.asdict(prediction) for prediction in told]


def _hindcast_row(hindcast: Hindcast) -> dict[str, Any]:
    row = dataclasses.asdict(hindcast)
    return {**row, "relative_error": hindcast.relative_error}


def _reading(runs: Runs, fit: Fit) -> dict[str, Any]:
    averaged = runs.averaged_over_seeds()
    known = all(run.images_seen is not None for run in runs)
    largest = largest_data(runs)
    return {
        "bottlenecks": [dataclasses.asdict(row) for row in bottlenecks(averaged)],
        "sample_efficiency": [
            {
                "error": row.error,
                "images": row.images,
                "at_most": sorted(row.at_most),
            }
            for row in sample_efficiency(
                averaged.where(lambda run: run.data_size == largest)
            )
        ]
        if known
        else [],
        "saturation": dataclasses.asdict(saturation(fit.law, runs.compute))
        if fit.converged
        else None,
    }


def _write(
    runs: Runs,
    fit: Fit,
    boot: Bootstrap | None,
    result: Mapping[str, Any],
    folder: pathlib.Path,
) -> list[str]:
    from vit_scaling.scaling.laws.plot_style import save_figure
    from vit_scaling.scaling.studies import paper_figures, report

    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "law.json", folder / "frontier.csv"]
    written[0].write_text(json.dumps(to_json_types(result), indent=1) + "\n")
    write_csv(fit.points, written[1])
    figure = paper_figures.study_figure(runs, fit, boot)
    written += save_figure(figure, folder / "frontier")
    written.append(folder / "report.html")
    law = fit.law if fit.converged else None
    report.write_report(runs, law, boot, result, written[-1])
    return [str(path) for path in written]
