"""The law of a table of runs with intervals, by the method that its columns allow."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import numpy as np

from vit_scaling.naming import check_known
from vit_scaling.scaling.laws.batched_fit import SQUARED_LOG_ERROR, Loss
from vit_scaling.scaling.laws.bootstrap import Bootstrap, bootstrap, check_resampling
from vit_scaling.scaling.laws.error_surface import envelope
from vit_scaling.scaling.laws.noise import (
    MIN_REPETITIONS,
    bound_noise,
    count_repetitions,
    noise_between_seeds,
)
from vit_scaling.scaling.laws.power_law import (
    COEFFICIENTS,
    Fit,
    PowerLaw,
    find_failure,
    fit_power_law,
    log_residuals,
    prepare_runs,
)
from vit_scaling.scaling.laws.runs import Floats, Runs
from vit_scaling.scaling.laws.surface_law import SurfaceLaw, fit_surface_law

METHODS = ("auto", "frontier", "fission", "surface")
_MIN_RUNS = 40  # Below, a surface has too few runs.
_MIN_SIZES = 4
_MANY_RUNS = 100  # From here on the frontier's bias is as large as its intervals.


@dataclasses.dataclass(frozen=True, kw_only=True)
class LawOptions:
    """How a law of compute and its intervals are fitted.

    Attributes:
        method: "frontier", "fission" (the frontier with intervals that allow for
            noise), "surface", or "auto": for at least 40 runs on one data set with the
            default loss the surface, or fission where sizes are not known; else the
            frontier. The paper's form only.
        loss: What the fit minimises; with the surface squares of log error only.
        slack: See `frontier`; 0 with the surface.
        resamples: Number of resamples.
        level: Coverage of the intervals.
        seed: Seed of the resampling.
    """

    method: str = "auto"
    loss: Loss = SQUARED_LOG_ERROR
    slack: float = 0.0
    resamples: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        check_known("method", self.method, METHODS)


@dataclasses.dataclass(frozen=True)
class LawEstimate:
    """A fitted law and its uncertainty.

    Attributes:
        fit: The law and the points to which it was fitted. By the method "surface"
            these are the runs moved to the best size of their compute.
        bootstrap: Its resamples; None if there is no law or the runs are too few.
        method: "frontier", "fission" or "surface".
        noise: Standard deviation of log error between seeds, or else about the
            surface; None: not known.
        notes: What a reader of the intervals must know, in sentences.
    """

    fit: Fit
    bootstrap: Bootstrap | None
    method: str
    noise: float | None
    notes: tuple[str, ...]


def estimate_law(runs: Runs, options: LawOptions | None = None) -> LawEstimate:
    """Fit the law and resample the runs.

    "frontier" is the paper's recipe: the runs that no cheaper one beats. With many
    noisy runs those are the lucky ones. "surface" fits a smooth surface of error over
    compute and size to all runs near the best sizes, and the law to its valley.
    "fission" needs no sizes: its law is that of the frontier, and its intervals reach
    to frontiers that keep no lucky runs, see `bootstrap`.

    Args:
        runs: Runs of one metric.
        options: How they are fitted; None: the defaults.

    Raises:
        ValueError: As `fit_power_law`, or the method does not suit the runs.
    """
    options = options or LawOptions()
    check_resampling(options.resamples, options.level)
    method = options.method
    runs = runs.of_metric(None).where(lambda run: run.weight > 0)
    setting = _find_unsuitable_setting(runs, options.loss, options.slack)
    obstacle = setting or _find_missing_sizes(runs)
    if method == "surface" and obstacle:
        raise ValueError(
            f"The method 'surface' does not suit these runs: {obstacle}. Use "
            "method='frontier' (--method=frontier)."
        )
    if method == "surface" and not obstacle:
        return _estimate_by_surface(runs, options)
    if method == "auto" and len(runs) >= _MIN_RUNS and not setting:
        if not obstacle:
            try:
                return _estimate_by_surface(runs, options)
            except (ValueError, RuntimeError):
                obstacle = "the surface of error gave no law"
        return _estimate_by_fission(runs, options, obstacle)
    if method == "fission":
        return _estimate_by_fission(runs, options, "")
    notes = []
    if method == "auto" and obstacle and len(runs) >= _MANY_RUNS:
        notes.append(
            f"The law is that of the frontier of {len(runs)} runs, because {obstacle}. "
            "Where runs are noisy, their frontier is too low by about their noise, "
            "which the intervals do not contain; those of `vit-scaling fit "
            "--method=fission` do."
        )
    fit = fit_power_law(runs, loss=options.loss, slack=options.slack)
    return _estimate_by_frontier(runs, fit, options, notes)


def _estimate_by_frontier(
    runs: Runs,
    fit: Fit,
    options: LawOptions,
    notes: list[str],
    noise: float | None = None,
) -> LawEstimate:
    """Resample the runs; by fission if `noise`, that of one run, is given."""
    boot = None
    if fit.converged:
        scatter = None if noise is None else noise / np.sqrt(count_repetitions(runs))
        try:
            boot = bootstrap(
                runs,
                fit,
                resamples=options.resamples,
                level=options.level,
                seed=options.seed,
                noise=scatter,
            )
        except RuntimeError as error:  # The fit itself remains valid.
            notes = [f"There are no intervals. {error}", *notes]
    method = "frontier" if noise is None else "fission"
    return LawEstimate(fit, boot, method, noise_between_seeds(runs), tuple(notes))


def _estimate_by_fission(runs: Runs, options: LawOptions, obstacle: str) -> LawEstimate:
    if not runs.error.min() > 0:
        raise ValueError(
            "The method 'fission' needs errors above 0: an error of 0 has no "
            "logarithm. Leave the row out, or use method='frontier' "
            "(--method=frontier)."
        )
    fit = fit_power_law(runs, loss=options.loss, slack=options.slack)
    if not fit.converged:
        return _estimate_by_frontier(runs, fit, options, [])
    averaged = prepare_runs(runs, loss=options.loss)
    noise = noise_between_seeds(runs)
    if noise is None:
        noise = bound_noise(fit.law, averaged)
        source = (
            "Without seeds it cannot be separated from the spread of models of other "
            f"sizes; the lower edge of the runs allows about {noise:.2%} at most. "
            f"Sizes (the number of parameters), or {MIN_REPETITIONS} runs repeated "
            "with other seeds, would make the intervals narrower."
        )
    else:
        source = f"It is {noise:.2%} between repeated seeds."
    because = f", because {obstacle}" if obstacle else ""
    note = (
        f"The law is that of the frontier of {len(averaged)} runs{because}. The "
        "frontier is too low where it keeps lucky runs. The intervals contain this for "
        f"normal noise of equal size in all runs. {source}"
    )
    return _estimate_by_frontier(runs, fit, options, [note], noise)


def _find_unsuitable_setting(runs: Runs, loss: Loss, slack: float) -> str:
    """Return why the default frontier of all runs is not fitted; "" if it is."""
    if loss != SQUARED_LOG_ERROR or slack:
        return "another loss or a slack was asked for"
    if not runs.error.min() > 0:
        return "an error of 0 has no logarithm"
    if len({run.data_size for run in runs}) > 1:
        return "their data sizes differ"
    return ""


def _find_missing_sizes(runs: Runs) -> str:
    """Return why the sizes do not suffice for a surface; "" if they do."""
    log_sizes = np.log(_find_sizes(runs))
    if not np.isfinite(log_sizes).all():
        return "the size of their models is not known (parameters or images seen)"
    if len(np.unique(log_sizes.round(6))) < _MIN_SIZES:
        return f"they have fewer than {_MIN_SIZES} sizes"
    return ""


def _find_sizes(runs: Runs) -> Floats:
    """Return parameters or else compute per example seen; NaN where not known."""
    sizes = runs.parameters
    return sizes if np.isfinite(sizes).all() else runs.compute / runs.images_seen


def _estimate_by_surface(runs: Runs, options: LawOptions) -> LawEstimate:
    law = fit_surface_law(
        *(runs.compute, _find_sizes(runs), runs.error),
        cluster=runs.clusters,
        weight=runs.weight,
        resamples=options.resamples,
        seed=options.seed,
    )
    inside = np.flatnonzero(law.valley.inside)
    points = Runs(
        tuple(
            dataclasses.replace(runs.rows[k], error=float(law.corrected_error[k]))
            for k in inside
        )
    )
    reason = find_failure(law.coefficients, law.converged, points)
    if reason:
        raise RuntimeError(reason)
    fitted = PowerLaw(*map(float, law.coefficients))
    rms = float(np.sqrt(np.mean(log_residuals(fitted, points) ** 2)))
    fit = Fit(points, SQUARED_LOG_ERROR, "", rms, 0.0, fitted)
    samples = law.samples[law.samples_converged]
    if len(samples) < options.resamples / 2:
        raise RuntimeError("Fewer than half of the resamples gave a law.")
    coefficients = len(COEFFICIENTS) + law.valley.terms
    boot = Bootstrap(fit, samples, options.resamples, options.level, coefficients)
    between_seeds = noise_between_seeds(runs)
    notes = _surface_notes(runs, law, boot, between_seeds)
    noise = law.valley.noise if between_seeds is None else between_seeds
    return LawEstimate(fit, boot, "surface", noise, notes)


def _surface_notes(
    runs: Runs, law: SurfaceLaw, boot: Bootstrap, between_seeds: float | None
) -> tuple[str, ...]:
    valley, largest = law.valley, float(runs.compute.max())
    notes = [
        f"The law is fitted to {len(boot.fit.points)} of {len(runs)} runs, each moved "
        "to the best size of its compute by a smooth surface of error over compute and "
        f"size. They scatter {valley.noise:.2%} about it."
    ]
    if between_seeds is not None and valley.noise > 1.5 * between_seeds:
        notes.append(
            f"Runs scatter {valley.noise:.2%} about the surface but only "
            f"{between_seeds:.2%} between seeds: something besides compute and size "
            "changes the error, such as a setting that was not tuned."
        )
    if valley.degree:
        at = 10 * largest
        joint, (low, high) = float(envelope(valley.surface, at)[0]), boot.band(at)[:, 0]
        if not low <= joint <= high:
            notes.append(
                f"At {at:.3g} {runs.unit.label} the joint surface E + (A/N^α + "
                f"B/D^β)^γ has an error of {joint:.4g}, outside the law's interval "
                f"{low:.4g} to {high:.4g}: the extrapolation depends on the form."
            )
    return tuple(notes)
