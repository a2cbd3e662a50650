"""A fitted surface L(N, D): coefficients, and the best use of compute."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vit_scaling.modeling.shapes import SHAPES
from vit_scaling.scaling.laws.runs import Floats, Runs
from vit_scaling.scaling.laws.surface_forms import SURFACES
from vit_scaling.scaling.laws.surfaces import Surface, SurfaceFit, log_residuals
from vit_scaling.scaling.laws.surfaces import fit_surface as fit_coefficients
from vit_scaling.scaling.planning.devices import device_named
from vit_scaling.scaling.planning.throughput import UTILISATION
from vit_scaling.scaling.studies import vit_sizes
from vit_scaling.scaling.studies.plots import (
    axis_label,
    axis_values,
    format_amount,
    set_log_axes,
)
from vit_scaling.scaling.studies.results import (
    Result,
    Section,
    an,
    interval_table,
    new_axes,
    records,
)

if TYPE_CHECKING:
    import pandas as pd

_GRID_POINTS = 600
_OUTLIER = 8.0  # Times the median distance from the law.


@dataclasses.dataclass(frozen=True)
class CostModel:
    """Compute per example as a power of the size, fitted to the runs.

    For language models it is 6 N FLOPs exactly.

    Attributes:
        log_scale: Logarithm of the scale, in the runs' unit.
        power: Exponent of N.
        deviation: Largest ratio of a run's cost to the model, or its inverse.
    """

    log_scale: float
    power: float
    deviation: float

    def examples_for(self, compute: npt.ArrayLike, size: npt.ArrayLike) -> Floats:
        """Return the examples that `compute` pays for."""
        log_cost = self.log_scale + self.power * np.log(size)
        return np.asarray(np.exp(np.log(compute) - log_cost))


def fit_cost(runs: Runs) -> CostModel:
    """Fit compute per example = scale · N^power to runs of several sizes."""
    log_size = np.log(runs.parameters)
    log_cost = np.log(runs.compute / runs.images_seen)
    power, level = np.polyfit(log_size - log_size.mean(), log_cost, 1)
    scale = level - power * log_size.mean()
    off = np.abs(log_cost - scale - power * log_size).max()
    return CostModel(float(scale), float(power), float(np.exp(off)))


class FittedSurface(Result):
    """A law of parameters N and examples D, fitted to all runs.

    Attributes:
        runs: The runs that were fitted.
        formula: The law as text.
        parameters: DataFrame with a row per coefficient ("E", "A", "B", "alpha" and
            "beta" for Chinchilla's form), columns "value", "low" and "high".
        cost: Compute per example.
        level: Nominal coverage of the intervals.
    """

    def __init__(
        self, fitted: SurfaceFit, *, level: float = 0.95, settings: dict[str, Any]
    ) -> None:
        """Wrap a fit; see `fit_surface`."""
        self._fitted, self.level, self._settings = fitted, level, settings
        self.runs, self.cost = fitted.runs, fit_cost(fitted.runs)
        form = SURFACES[fitted.surface.form]
        self.formula = form.formula
        values = dict(zip(form.names, fitted.surface.values.tolist(), strict=True))
        ends: dict[str, Any] = {}
        if fitted.samples is not None:
            low, high = self._quantiles(fitted.samples.values)
            ends = dict(zip(form.names, zip(low, high, strict=True), strict=True))
        self.parameters = interval_table(values, ends)

    def _quantiles(self, samples: Floats) -> Floats:
        tail = 50 * (1 - self.level)
        return np.asarray(np.percentile(samples, [tail, 100 - tail], axis=0))

    def predict(
        self,
        compute: npt.ArrayLike | None = None,
        *,
        size: npt.ArrayLike | None = None,
        examples: npt.ArrayLike | None = None,
        unique: npt.ArrayLike | None = None,
    ) -> "pd.DataFrame":
        """Return the loss of given sizes and examples, or at the best use of compute.

        Args:
            compute: Budgets in the runs' unit: as `optimal`.
            size: Parameters N; needs `examples`.
            examples: Examples or tokens D.
            unique: Different examples among them, for the form "repetition".
        """
        import pandas as pd

        if size is None or examples is None:
            if compute is None:
                raise ValueError("Give `compute`, or `size` and `examples`.")
            return self.optimal(compute)
        size, examples = np.atleast_1d(size), np.atleast_1d(examples)
        point = size, examples, unique
        table = pd.DataFrame({"size": size, "examples": examples})
        table[self.runs.target] = self._fitted.surface.loss_at(*point)
        if self._fitted.samples is not None:
            ends = self._quantiles(self._fitted.samples.loss_at(*point))
            table["low"], table["high"] = ends
        return table

    def optimal(
        self,
        compute: npt.ArrayLike,
        *,
        image_size: int = vit_sizes.IMAGE_SIZE,
        device: str | None = None,
        utilisation: float = UTILISATION,
        price_per_hour: float | None = None,
    ) -> "pd.DataFrame":
        """Return the best size, examples and loss for each budget.

        Where runs are named ViT shapes, the named shape with the lowest loss at the
        budget is added, with its examples and loss.

        Args:
            compute: Budgets in the runs' unit.
            image_size: Side of a ViT's images in pixels.
            device: Device to estimate hours on, at a fraction of its peak.
            utilisation: That fraction.
            price_per_hour: Price of an hour of it.

        Raises:
            ValueError: A budget is not above 0, or the device's hours are not known.
        """
        import pandas as pd

        budgets = np.atleast_1d(np.asarray(compute, float))
        if not (np.isfinite(budgets).all() and (budgets > 0).all()):
            raise ValueError(f"A budget must be above 0; received {compute!r}.")
        table = pd.DataFrame([self._optimum(budget) for budget in budgets])
        if any(run.shape is not None for run in self.runs):
            shapes = [self._best_shape(budget, image_size) for budget in budgets]
            table = pd.concat([table, pd.DataFrame(shapes)], axis=1)
        if device is not None:
            hours = self._device_hours(budgets, device, utilisation)
            table["device_hours"] = hours
            if price_per_hour is not None:
                table["price"] = hours * price_per_hour
        return table

    def _optimum(self, budget: float) -> dict[str, float]:
        low, high = self.runs.parameters.min(), self.runs.parameters.max()
        sizes = np.geomspace(low / 30, high * 1e4, _GRID_POINTS)
        examples = self.cost.examples_for(budget, sizes)
        row = {"compute": budget}
        best = _minimum(self._fitted.surface.loss_at(sizes, examples), sizes)
        size, loss = float(best[0]), float(best[1])
        row |= {"size": size, "examples": float(self.cost.examples_for(budget, size))}
        row[self.runs.target] = loss
        if self._fitted.samples is not None:
            drawn = _minimum(self._fitted.samples.loss_at(sizes, examples), sizes)
            ends = self._quantiles(drawn[0]), self._quantiles(drawn[1])
            row |= {"size_low": ends[0][0], "size_high": ends[0][1]}
            row |= {"low": ends[1][0], "high": ends[1][1]}
        return row

    def _best_shape(self, budget: float, image_size: int) -> dict[str, Any]:
        """Return the named shape with the lowest loss at a budget."""
        names = list(SHAPES)
        sizes = np.array(
            [vit_sizes.encoder_parameters(SHAPES[n], image_size) for n in names]
        )
        if self.runs.unit.quantity == "FLOPs":
            work = [vit_sizes.training_flops(SHAPES[n], image_size) for n in names]
            examples = budget * self.runs.unit.factor / np.array(work)
        else:
            examples = self.cost.examples_for(budget, sizes)
        loss = self._fitted.surface.loss_at(sizes, examples)
        best = int(np.argmin(loss))
        return {
            "shape": names[best],
            "shape_examples": float(examples[best]),
            f"shape_{self.runs.target}": float(loss[best]),
        }

    def _device_hours(self, budgets: Floats, name: str, utilisation: float) -> Floats:
        unit, device = self.runs.unit, device_named(name)
        if unit.quantity != "FLOPs":
            raise ValueError(
                f"Compute is in {unit.label}: hours on {device.name} need FLOPs. Leave "
                "out the device (--device), or give a table with FLOPs."
            )
        if not device.peak_flops:
            raise ValueError(
                f"The peak rate of {device.name} is not known. Name a device."
            )
        return budgets * unit.factor / (device.peak_flops * utilisation) / 3600

    @property
    def notes(self) -> Sequence[str]:
        """How the table was read, outliers, and the cost of an example."""
        notes = [*self.runs.notes]
        off = np.abs(log_residuals(self._fitted.surface, self.runs))
        far = off > _OUTLIER * np.median(off)
        if far.any():
            count = int(far.sum())
            largest = np.argsort(self.runs.error)[-count:]
            is_largest = set(largest) == set(np.flatnonzero(far))
            advice = f" Leave them out with leave_out_largest={count} "
            advice += "(--leave_out_largest)."
            notes.append(
                f"{count} runs are more than {_OUTLIER:g} times as far from the law as "
                f"the median run, up to {off.max():.0%}."
                + (advice if is_largest else "")
            )
        if self._fitted.left_out is not None:
            left = self._fitted.left_out
            notes.append(
                f"{len(left)} runs with the largest losses are left out, from "
                f"{left.error.min():.4g}."
            )
        if self.cost.deviation > 1.2:
            notes.append(
                f"Compute per example is taken as a power of the size; runs differ "
                f"from it by a factor of up to {self.cost.deviation:.2g}."
            )
        if not self._fitted.converged:
            notes.append("A coefficient is at its bound: the runs do not determine it.")
        return notes

    @property
    def answer(self) -> str:
        """Coefficients and the best use of ten times the largest compute, in words."""
        values = ", ".join(
            f"{name} = {value:.4g}" for name, value in self.parameters["value"].items()
        )
        row = self.optimal(10 * self.runs.compute.max()).iloc[0]
        return (
            f"{self.runs.metrics[0]}: {self.formula} with {values}, from "
            f"{len(self.runs)} runs (rms of log error "
            f"{self._fitted.rms_log_error:.4f}). Ten times the largest compute, "
            f"{row['compute']:.3g} {self.runs.unit.label}, is best spent on "
            f"{row['size']:.3g} parameters and {row['examples']:.3g} examples, for "
            f"{an(self.runs.target)} of {row[self.runs.target]:.4g}."
        )

    @property
    def sections(self) -> Sequence[Section]:
        """Coefficients and the best use of compute."""
        unit = f"Compute in {self.runs.unit.label}."
        return [
            Section(self.formula, self.parameters),
            Section("Best use of compute", self.optimal(self._budgets), [unit]),
        ]

    @property
    def _budgets(self) -> Floats:
        return self.runs.compute.max() * np.array([0.1, 1, 10, 100])

    def plot(self, ax: Any = None) -> Any:
        """Draw runs by size, and the best loss by compute with its interval."""
        from matplotlib.colors import LogNorm

        ax, runs = new_axes(ax), self.runs
        y = axis_values(runs, runs.error)
        sizes = LogNorm(runs.parameters.min(), runs.parameters.max())
        dots = ax.scatter(runs.compute, y, c=runs.parameters, norm=sizes, s=22,
                          cmap="viridis", edgecolors="white", linewidths=0.4,
                          label="runs")  # fmt: skip
        grid = np.geomspace(runs.compute.min(), runs.compute.max() * 10, 24)
        table = self.optimal(grid)
        best = axis_values(runs, table[runs.target])
        if "low" in table:
            ends = axis_values(runs, table["low"]), axis_values(runs, table["high"])
            label = f"{self.level:.0%} interval"
            ax.fill_between(grid, *ends, color="black", alpha=0.12, lw=0, label=label)
        ax.plot(grid, best, "k--", lw=1.6, label="best size for the compute")
        set_log_axes(ax, runs)
        ax.set_ylim(bottom=min(ax.get_ylim()[0], float(best.min()) * 0.97))
        for place in (0, 8, 16, 23):
            size = float(f"{table['size'][place]:.2g}")
            text = f"N = {format_amount(size)}"
            ax.annotate(text, (grid[place], best[place]), xytext=(-4, -14),
                        textcoords="offset points", fontsize=8, ha="right")  # fmt: skip
        ax.figure.colorbar(dots, ax=ax, label="Parameters")
        ax.set_ylabel(axis_label(runs))
        ax.legend(frameon=False, fontsize=8)
        return ax

    def get_params(self) -> dict[str, Any]:
        """Return the settings of the fit."""
        return dict(self._settings)

    def as_dict(self) -> dict[str, Any]:
        """Return coefficients, intervals and the best use of compute."""
        return {
            "kind": "surface",
            "form": self._fitted.surface.form,
            "formula": self.formula,
            "metric": self.runs.metrics[0],
            "target": self.runs.target,
            "compute_unit": self.runs.compute_unit,
            "runs": len(self.runs),
            "converged": self._fitted.converged,
            "rms_log_error": self._fitted.rms_log_error,
            "level": self.level,
            "parameters": records(self.parameters),
            "optimal": records(self.optimal(self._budgets)),
            "settings": self.get_params(),
            "notes": list(self.notes),
        }


def _minimum(loss: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """Return (size, loss) at the minimum over the last axis, by a parabola."""
    place = np.clip(np.argmin(loss, axis=-1), 1, len(sizes) - 2)[..., None]
    left, middle, right = (
        np.take_along_axis(loss, place + k, axis=-1)[..., 0] for k in (-1, 0, 1)
    )
    curvature = left - 2 * middle + right
    slope = (right - left) / 2
    shift = np.where(curvature > 0, -slope / np.where(curvature > 0, curvature, 1), 0)
    shift = np.clip(shift, -1, 1)
    step = np.log(sizes[1] / sizes[0])
    best = sizes[place[..., 0]] * np.exp(shift * step)
    return best, middle + slope * shift / 2


def fit_surface(
    runs: Runs,
    *,
    form: str = "chinchilla",
    loss: str = "huber",
    leave_out_largest: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> FittedSurface:
    """Fit L(N, D) to all runs (Hoffmann et al. 2022, approach 3).

    Args:
        runs: Runs of one metric with parameters (or named ViT shapes) and examples.
        form: "chinchilla", "kaplan", "joint" (both are cases of it), or "repetition"
            for data seen several times.
        loss: "huber" (delta 0.001 of log loss, as published) or "squared".
        leave_out_largest: Runs with the largest losses to leave out.
        resamples: Bootstraps for the intervals.
        level: Their coverage.
        seed: Seed of the resampling.

    Raises:
        ValueError: A name is unknown, or the runs lack sizes or are too few.
    """
    settings: dict[str, Any] = {
        "form": form,
        "loss": loss,
        "leave_out_largest": leave_out_largest,
        "resamples": resamples,
        "seed": seed,
    }
    fitted = fit_coefficients(vit_sizes.fill_sizes(runs), **settings)
    return FittedSurface(fitted, level=level, settings=settings | {"level": level})


__all__ = ["CostModel", "FittedSurface", "Surface", "fit_cost", "fit_surface"]
