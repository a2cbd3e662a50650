"""Scaling laws from anyone's table of runs; imports no TensorFlow.

Example:
    >>> from vit_scaling import scaling
    >>> runs = scaling.paper_runs("imagenet_10shot")
    >>> law = scaling.fit(runs, resamples=100)
    >>> list(law.parameters.index)
    ['a', 'b', 'c', 'd']
"""
# SPDX-License-Identifier: Apache-2.0

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_scaling.scaling.laws.paper_results import paper_runs
    from vit_scaling.scaling.laws.runs import Run, Runs
    from vit_scaling.scaling.studies.fitted_law import FittedLaw, fit
    from vit_scaling.scaling.studies.fitted_sizes import (
        FittedSizes,
        envelope,
        isoflop,
    )
    from vit_scaling.scaling.studies.fitted_surface import FittedSurface, fit_surface
    from vit_scaling.scaling.studies.law_scores import LawScores, score
    from vit_scaling.scaling.studies.results import write_report
    from vit_scaling.scaling.studies.run_sources import grouped_runs_from, runs_from

__all__ = [
    "FittedLaw",
    "FittedSizes",
    "FittedSurface",
    "LawScores",
    "Run",
    "Runs",
    "envelope",
    "fit",
    "fit_surface",
    "grouped_runs_from",
    "isoflop",
    "paper_runs",
    "runs_from",
    "score",
    "write_report",
]
_MODULES = {
    "laws.paper_results": ("paper_runs",),
    "laws.runs": ("Run", "Runs"),
    "studies.fitted_law": ("FittedLaw", "fit"),
    "studies.fitted_sizes": ("FittedSizes", "envelope", "isoflop"),
    "studies.fitted_surface": ("FittedSurface", "fit_surface"),
    "studies.law_scores": ("LawScores", "score"),
    "studies.results": ("write_report",),
    "studies.run_sources": ("grouped_runs_from", "runs_from"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import SciPy with the first function: commands check their flags before."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULE_OF[name]}")
    return getattr(module, name)
