"""The paper's own measurements, shipped with the package (Figure 2, Tables 4 to 22)."""
# SPDX-License-Identifier: Apache-2.0

import csv
import functools
import pathlib
from collections.abc import Iterator, Mapping

from vit_scaling.naming import unknown_name_message
from vit_scaling.scaling.laws.power_law import PowerLaw
from vit_scaling.scaling.laws.row_reader import parse_quantity
from vit_scaling.scaling.laws.runs import Run, Runs, find_shape

FOLDER = pathlib.Path(__file__).parents[1] / "paper_data"
BATCH_SIZE = 4096  # "steps" of the paper's tables are normalised to it.

# fmt: off
# Metric: (file, column); accuracies in percent, compute from the rates of Figure 2.
TABLE_METRICS = {
    "imagenet_5shot": ("table4_13_fewshot_acc.csv", "INet5"),
    "cifar100_5shot": ("table4_13_fewshot_acc.csv", "Cifar5"),
    "cifar100_10shot": ("table4_13_fewshot_acc.csv", "Cifar10"),
    "pets_5shot": ("table4_13_fewshot_acc.csv", "Pets5"),
    "pets_10shot": ("table4_13_fewshot_acc.csv", "Pets10"),
    "birds_5shot": ("table4_13_fewshot_acc.csv", "Birds5"),
    "birds_10shot": ("table4_13_fewshot_acc.csv", "Birds10"),
    "imagenet_v2_finetune": ("table14_22_finetune_acc.csv", "ImageNetV2"),
    "imagenet_real_finetune": ("table14_22_finetune_acc.csv", "ReaL"),
}
FIGURE_METRICS = ("imagenet_finetune", "imagenet_10shot")
# The dashed curves of Figure 2, to four digits (printed with two), and their range.
PUBLISHED_LAWS = {
    "imagenet_finetune": PowerLaw(a=0.2584, b=0.3533, c=0.0943, d=0.0097),
    "imagenet_10shot": PowerLaw(a=0.6326, b=0.3190, c=0.1236, d=0.5164),
}
PUBLISHED_RANGES = {
    "imagenet_finetune": (0.3, 9000.0),
    "imagenet_10shot": (0.2, 40000.0),
}
# fmt: on
METRICS = (*FIGURE_METRICS, *TABLE_METRICS)


@functools.lru_cache
def core_days_per_step(model: str) -> float:
    """Return TPUv3 core-days per step of batch 4096 (slopes of Figure 2)."""
    rates = {
        row["model"]: float(row["core_days_per_1000_steps"]) / 1000
        for row in _rows("core_days_per_1000_steps.csv")
    }
    if model not in rates:
        raise ValueError(unknown_name_message("model of the paper", model, rates))
    return rates[model]


def paper_runs(metric: str = "imagenet_10shot") -> Runs:
    """Return the paper's runs for one metric; every row names its source.

    The two ImageNet metrics are the points of Figure 2 with their own core-days; the
    others are Tables 4 to 22 with the core-days per step of Figure 2.

    Args:
        metric: One of `METRICS`.

    Raises:
        ValueError: The metric is unknown.
    """
    if metric in FIGURE_METRICS:
        return Runs(tuple(_figure_runs(metric)))
    if metric in TABLE_METRICS:
        return Runs(tuple(_table_runs(metric, *TABLE_METRICS[metric])))
    raise ValueError(unknown_name_message("metric of the paper", metric, METRICS))


def _figure_runs(metric: str) -> Iterator[Run]:
    for row in _rows("fig2_points.csv"):
        if row["metric"] == metric:
            error = float(row["error_pct"]) / 100
            yield _make_run(row, metric, float(row["core_days"]), error, row["source"])


def _table_runs(metric: str, file: str, column: str) -> Iterator[Run]:
    for row in _rows(file):
        if row[column]:
            days = parse_quantity(row["steps"]) * core_days_per_step(row["model"])
            source = f"{row['source']}; core-days from the rates of Figure 2"
            error = round(1 - float(row[column]) / 100, 6)
            yield _make_run(row, metric, days, error, source)


def _make_run(
    row: Mapping[str, str], metric: str, core_days: float, error: float, source: str
) -> Run:
    return Run(
        model=row["model"],
        compute=core_days,
        error=error,
        metric=metric,
        data_size=parse_quantity(row["data"]),
        images_seen=parse_quantity(row["steps"]) * BATCH_SIZE,
        shape=find_shape(row["model"]),
        source=source,
    )


def shapefinder_rows() -> list[dict[str, str]]:
    """Return Figure 8 at depths 24, 40 and 56: what fits a TPUv3 core."""
    return _rows("fig8_shapefinder.csv")


def _rows(file: str) -> list[dict[str, str]]:
    with open(FOLDER / file, newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))
