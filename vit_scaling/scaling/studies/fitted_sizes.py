"""Best sizes by compute without a surface: isoFLOP profiles or the envelope."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vit_scaling.scaling.laws.compute_optimal import (
    PowerFit,
    Profile,
    fit_envelope_sizes,
    fit_isoflop_sizes,
)
from vit_scaling.scaling.laws.runs import Floats, Runs
from vit_scaling.scaling.studies.fitted_surface import fit_cost
from vit_scaling.scaling.studies.plots import axis_label, axis_values
from vit_scaling.scaling.studies.results import (
    Result,
    Section,
    interval_table,
    new_axes,
    records,
)
from vit_scaling.scaling.studies.vit_sizes import fill_sizes

if TYPE_CHECKING:
    import pandas as pd


class FittedSizes(Result):
    """The best size N and examples D as powers of compute.

    Attributes:
        runs: The runs.
        approach: "isoFLOP profiles" or "envelope".
        parameters: DataFrame with the exponents "a" (N ~ C^a) and "b" (D ~ C^b),
            columns "value", "low" and "high".
        profiles: DataFrame with a row per budget; None for the envelope.
    """

    def __init__(
        self,
        runs: Runs,
        approach: str,
        sizes: PowerFit,
        profiles: Sequence[Profile],
        level: float,
    ) -> None:
        """Wrap a fit; see `isoflop` and `envelope`."""
        self.runs, self.approach, self.level = runs, approach, level
        self._sizes, self._profiles = sizes, profiles
        self._cost = fit_cost(runs)
        values = {"a": sizes.exponent, "b": 1 - self._cost.power * sizes.exponent}
        ends: dict[str, Any] = {}
        if len(sizes.samples):
            drawn = sizes.samples[:, 1]
            ends = {"a": self._quantiles(drawn)}
            ends["b"] = self._quantiles(1 - self._cost.power * drawn)
        self.parameters = interval_table(values, ends)
        self.profiles = _profile_table(runs, profiles) if profiles else None

    def _quantiles(self, samples: npt.ArrayLike) -> Floats:
        tail = 50 * (1 - self.level)
        return np.asarray(
            np.percentile(np.asarray(samples, float), [tail, 100 - tail], axis=0)
        )

    def optimal(self, compute: npt.ArrayLike) -> "pd.DataFrame":
        """Return the best size and examples for each budget, in the runs' unit."""
        import pandas as pd

        compute = np.atleast_1d(np.asarray(compute, float))
        size = self._sizes.size_at(compute)
        examples = self._cost.examples_for(compute, size)
        table = pd.DataFrame({"compute": compute, "size": size, "examples": examples})
        if len(self._sizes.samples):
            scale, exponent = self._sizes.samples.T[..., None]
            drawn = np.exp(scale + exponent * np.log(compute))
            table["size_low"], table["size_high"] = self._quantiles(drawn)
        return table

    def predict(self, compute: npt.ArrayLike) -> "pd.DataFrame":
        """Return the best size and examples for each budget: `optimal`."""
        return self.optimal(compute)

    @property
    def notes(self) -> Sequence[str]:
        """How the table was read, and budgets without a minimum."""
        without = sum(not np.isfinite(p.best_size) for p in self._profiles)
        missing = (
            f"{without} of {len(self._profiles)} budgets have no minimum among their "
            "sizes and are left out."
        )
        return [*self.runs.notes, *([missing] if without else [])]

    @property
    def answer(self) -> str:
        """The exponents in words."""
        row = self.parameters.loc["a"]
        return (
            f"{self.runs.metrics[0]}, by the {self.approach}: the best size grows as "
            f"C^{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f}, "
            f"{self.level:.0%}), the examples as "
            f"C^{self.parameters.loc['b', 'value']:.3f}."
        )

    @property
    def sections(self) -> Sequence[Section]:
        """Exponents, best sizes by budget and the profiles."""
        unit = f"Compute in {self.runs.unit.label}."
        budgets = self.runs.compute.max() * np.array([0.1, 1, 10, 100])
        parts = [
            Section("Exponents: N ~ C^a, D ~ C^b", self.parameters),
            Section("Best use of compute", self.optimal(budgets), [unit]),
        ]
        if self.profiles is not None:
            parts.append(Section("Profiles", self.profiles, [unit]))
        return parts

    def plot(self, ax: Any = None) -> Any:
        """Draw the profiles with their parabolas, or the envelope's sizes."""
        ax = new_axes(ax)
        if self.profiles is None:
            self._plot_sizes(ax)
        else:
            self._plot_profiles(ax)
        ax.set_xscale("log")
        ax.grid(True, alpha=0.4)
        ax.legend(frameon=False, fontsize=7)
        return ax

    def _plot_sizes(self, ax: Any) -> None:
        compute, size = self._sizes.compute, self._sizes.size
        ax.scatter(compute, size, s=24, label="runs on the frontier")
        ax.plot(compute, self._sizes.size_at(compute), "k--", label="power law")
        ax.set_yscale("log")
        ax.set_xlabel(f"Compute ({self.runs.unit.label})")
        ax.set_ylabel("Parameters")

    def _plot_profiles(self, ax: Any) -> None:
        from matplotlib import colormaps

        shades = colormaps["viridis"].resampled(max(len(self._profiles), 2))
        for number, profile in enumerate(self._profiles):
            size = self.runs.parameters[profile.positions]
            y = axis_values(self.runs, self.runs.error[profile.positions])
            label = f"{profile.compute:.1e} {self.runs.unit.label}"
            ax.scatter(size, y, s=14, color=shades(number), label=label)
            grid = np.geomspace(size.min(), size.max(), 60)
            curve = np.polyval(profile.curve, np.log(grid) - np.log(size).mean())
            ax.plot(grid, axis_values(self.runs, np.exp(curve)), color=shades(number),
                    lw=1)  # fmt: skip
            best = axis_values(self.runs, profile.best_loss)
            ax.plot(profile.best_size, best, "k*", ms=7)
        ax.set_xlabel("Parameters (star: minimum of the parabola)")
        ax.set_ylabel(axis_label(self.runs))

    def as_dict(self) -> dict[str, Any]:
        """Return exponents, best sizes and profiles in JSON's types."""
        budgets = self.runs.compute.max() * np.array([0.1, 1, 10, 100])
        return {
            "kind": self.approach,
            "metric": self.runs.metrics[0],
            "target": self.runs.target,
            "compute_unit": self.runs.compute_unit,
            "runs": len(self.runs),
            "level": self.level,
            "parameters": records(self.parameters),
            "optimal": records(self.optimal(budgets)),
            "profiles": [] if self.profiles is None else records(self.profiles),
            "notes": list(self.notes),
        }


def _profile_table(runs: Runs, profiles: Sequence[Profile]) -> "pd.DataFrame":
    import pandas as pd

    rows = [(p.compute, len(p.positions), p.best_size, p.best_loss) for p in profiles]
    columns = ["compute", "runs", "size", runs.target]
    return pd.DataFrame(rows, columns=columns)


def isoflop(
    runs: Runs,
    *,
    tolerance: float = 0.1,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> FittedSizes:
    """Fit isoFLOP profiles (Hoffmann et al. 2022, approach 2).

    Args:
        runs: Runs of one metric with parameters (or named ViT shapes) and examples.
        tolerance: Largest difference of log compute from the middle of a budget.
        resamples: Bootstraps for the intervals.
        level: Their coverage.
        seed: Seed of the resampling.

    Raises:
        ValueError: Fewer than three budgets have a minimum.
    """
    runs = fill_sizes(runs.of_metric(None))
    profiles, sizes = fit_isoflop_sizes(
        runs, tolerance=tolerance, resamples=resamples, seed=seed
    )
    return FittedSizes(runs, "isoFLOP profiles", sizes, profiles, level)


def envelope(
    runs: Runs, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> FittedSizes:
    """Fit the sizes of the runs on the frontier (Hoffmann et al. 2022, approach 1).

    Args:
        runs: As `isoflop`.
        resamples: Bootstraps for the intervals.
        level: Their coverage.
        seed: Seed of the resampling.

    Raises:
        ValueError: Fewer than three runs are on the frontier.
    """
    runs = fill_sizes(runs.of_metric(None))
    sizes = fit_envelope_sizes(runs, resamples=resamples, seed=seed)
    return FittedSizes(runs, "envelope", sizes, [], level)
