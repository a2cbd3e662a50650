"""Units of compute are read from names, or not at all."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.scaling.laws.compute_units import ACCEPTED_UNITS, find_unit, parse_unit
from vit_scaling.scaling.laws.run_tables import runs_from


@pytest.mark.parametrize(
    ("text", "name", "quantity", "factor", "label"),
    [
        ("flops", "flops", "FLOPs", 1, "FLOPs"),
        ("Training FLOP", "flops", "FLOPs", 1, "FLOPs"),
        ("gflops_total", "gflops", "FLOPs", 1e9, "GFLOPs"),
        ("compute (TFLOPs)", "tflops", "FLOPs", 1e12, "TFLOPs"),
        ("petaFLOPs", "pflops", "FLOPs", 1e15, "PFLOPs"),
        ("gmacs_total", "gmacs", "FLOPs", 2e9, "GMACs"),
        ("MACs", "macs", "FLOPs", 2, "MACs"),
        ("multadds", "macs", "FLOPs", 2, "MACs"),
        ("TFLOPs (train)", "tflops", "FLOPs", 1e12, "TFLOPs"),
        ("exaflops", "eflops", "FLOPs", 1e18, "EFLOPs"),
        ("PF-days", "pf_days", "FLOPs", 8.64e19, "PF-days"),
        ("petaflop/s-days", "pf_days", "FLOPs", 8.64e19, "PF-days"),
        ("GPU hours", "gpu_hours", "GPU time", 1 / 24, "GPU-hours"),
        ("A100 GPU hours", "a100_hours", "A100 time", 1 / 24, "A100-hours"),
        ("core-days", "core_days", "TPUv3 core time", 1, "TPUv3 core-days"),
        ("TPUv3 core days", "core_days", "TPUv3 core time", 1, "TPUv3 core-days"),
        (
            *("tpu_v4_core_days", "tpuv4_core_days"),
            *("TPUv4 core time", 1, "TPUv4 core-days"),
        ),
        (
            *("TPUv3 core hours", "tpuv3_core_hours"),
            *("TPUv3 core time", 1 / 24, "TPUv3 core-hours"),
        ),
    ],
)
def test_units_are_parsed_from_names(text, name, quantity, factor, label):
    unit = parse_unit(text)
    assert (unit.name, unit.quantity, unit.label) == (name, quantity, label)
    assert unit.factor == pytest.approx(factor)
    assert parse_unit(unit.name) == unit


@pytest.mark.parametrize(
    "text",
    [
        "compute",
        "days",
        "GFLOPs/s",
        "gflops_per_image",
        "log10_flops",
        "kWh",
        "cost",
        "params",
        "",
    ],
)
def test_other_quantities_are_no_unit_of_compute(text):
    assert find_unit(text) is None


def test_an_unknown_unit_names_the_accepted_ones_and_the_flag():
    with pytest.raises(ValueError, match=r"Give --compute_unit, such as core_days"):
        parse_unit("parsecs")
    assert [parse_unit(name).name for name in ACCEPTED_UNITS] == list(ACCEPTED_UNITS)


@pytest.mark.parametrize(
    "text", ["GPU hours", "H100 days", "A100 core-days", "v4 core days", "core hours"]
)
def test_time_of_other_devices_is_not_converted(text):
    assert find_unit(text).quantity not in ("FLOPs", "TPUv3 core time")


def table(tmp_path, column, values):
    path = tmp_path / "runs.csv"
    rows = [f"m{n},{value},0.{9 - n}" for n, value in enumerate(values)]
    path.write_text("\n".join([f"model,{column},error", *rows]))
    return path


@pytest.mark.parametrize(
    ("column", "factor"), [("gflops_total", 1e9), ("gmacs", 2e9), ("flops", 1)]
)
def test_a_column_has_a_factor_to_flops(tmp_path, column, factor):
    path = table(tmp_path, column, [1e9, 3e9])
    runs = runs_from(path, compute=column)
    assert runs.unit.quantity == "FLOPs"
    np.testing.assert_allclose(
        runs.compute * runs.unit.factor, np.array([1e9, 3e9]) * factor
    )


def test_an_unknown_unit_asks_for_the_flag(tmp_path):
    path = table(tmp_path, "hours", [10, 30])
    with pytest.raises(ValueError, match=r"'hours' is not known.*--compute_unit"):
        runs_from(path, compute="hours")
    runs = runs_from(path, compute="hours", unit="pf_days")
    np.testing.assert_allclose(
        runs.compute * runs.unit.factor, np.array([10, 30]) * 1e15 * 86_400
    )
    with pytest.raises(ValueError, match="--compute_unit 'hours' is not known"):
        runs_from(path, compute="hours", unit="hours")
