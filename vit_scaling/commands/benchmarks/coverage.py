"""How often a scaling law's 95 % intervals hold the truth, on simulated studies."""
# SPDX-License-Identifier: Apache-2.0

import argparse
import itertools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_scaling.commands import cli
from vit_scaling.commands.benchmarks import records
from vit_scaling.commands.benchmarks.records import Table

PACKAGES = ("numpy", "scipy")
COVERAGES = ("ahead", "within", "floor")
RUNS, NOISE = "40,100,300,1000", "0.005,0.01,0.03"
ACCEPTED = (0.90, 0.98)
Cell = tuple[str, int, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags: the cells, and how much of each to run."""
    add = parser.add_argument
    add("--truths", default="law,chinchilla,kaplan", help="surfaces of error")
    add("--runs", default=RUNS, help="runs in a study")
    add("--noise", default=NOISE, help="standard deviation of log error")
    add("--studies", type=int, default=200, help="studies in a cell")
    add("--resamples", type=int, default=200, help="resamples in a study")
    add("--method", default="auto", choices=["auto", "frontier", "fission", "surface"],
        help="frontier and fission do not use the sizes")  # fmt: skip
    add("--repeated", type=int, default=0, help="runs that have a second seed")
    add("--output_file", default="coverage.jsonl", metavar="FILE",
        help="a line per study; stored studies are not run again")  # fmt: skip


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Run the missing studies, cell by cell; return the coverage of each cell."""
    from vit_scaling.scaling.laws.simulated_studies import simulate_study

    path = pathlib.Path(arguments.output_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = cli.select_flags(arguments, "method", "resamples", "repeated")
    done = _read(path, settings)
    lists = [getattr(arguments, n).split(",") for n in ("truths", "runs", "noise")]
    cells: list[Cell] = [
        (truth, int(runs), float(noise))
        for truth, runs, noise in itertools.product(*lists)
    ]
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n")  # Ends the last line of a command that was killed.
        for study, cell in itertools.product(range(arguments.studies), cells):
            if (cell, study) in done:
                continue
            outcome = simulate_study(*cell, study, **settings)._asdict()
            done[cell, study] = outcome
            row = {"cell": cell, "study": study, **settings, **outcome}
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
    groups = {
        cell: [done[cell, study] for study in range(arguments.studies)]
        for cell in cells
    }
    rows = [_summary(cell, outcomes) for cell, outcomes in groups.items()]
    return {**settings, "studies": arguments.studies, "cells": rows}


def _read(
    path: pathlib.Path, settings: Mapping[str, Any]
) -> dict[tuple[Cell, int], Mapping[str, Any]]:
    """Return the stored outcomes by cell and study; an incomplete line is left out."""
    done = {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:  # The last line of a command that was killed.
            continue
        if all(row.get(name, 0) == value for name, value in settings.items()):
            truth, runs, noise = row["cell"]
            done[(truth, runs, noise), row["study"]] = row
    return done


def _summary(cell: Cell, outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from vit_scaling.scaling.laws.simulated_studies import binomial_interval

    truth, runs, noise = cell
    row: dict[str, Any] = {"truth": truth, "runs": runs, "noise": noise}
    low, high = ACCEPTED
    for name in COVERAGES:
        held = [outcome[name] for outcome in outcomes if outcome[name] is not None]
        if not held:
            row[name] = None
            continue
        ends = binomial_interval(sum(held), len(held))
        row[name] = {
            "coverage": sum(held) / len(held),
            "interval": ends,
            "too_low": ends[1] < low,
            "too_high": ends[0] > high,
        }
    for name in ("ahead_width", "within_width", "ahead_bias"):
        values = [outcome[name] for outcome in outcomes if outcome["converged"]]
        row[name] = float(np.median(values)) if values else None
    row["converged"] = float(np.mean([outcome["converged"] for outcome in outcomes]))
    return row


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return the table of cells; ! marks a coverage that is surely below 90 %."""
    method, repeated = result["method"], result["repeated"]
    rows = [
        {
            **row,
            "noise": f"{row['noise']:.1%}",
            **{name: _format_coverage(row[name]) for name in COVERAGES},
            **{
                name: None if row[name] is None else f"{row[name]:.1%}"
                for name in ("ahead_width", "within_width")
            },
        }
        for row in result["cells"]
    ]
    columns = {
        "truth": "truth",
        "runs": "runs",
        "noise": "noise",
        "ahead": "law at ten times the compute",
        "within": "law within the data",
        "floor": "c",
        "ahead_width": "width at ten times",
        "within_width": "width within",
    }
    name, title = "coverage", "How often 95 % intervals hold the truth"
    if method != "auto":
        name, title = f"{name}_{method}", f"{title}, method {method}"
    if repeated:
        name, title = f"{name}_repeated", f"{title}, {repeated} runs repeated"
    return [records.make_table(name, "Scaling laws", title, columns, rows)]


def _format_coverage(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    return f"{cell['coverage']:.3f}" + ("!" if cell["too_low"] else "")
