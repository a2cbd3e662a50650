"""Units of compute are read from names, or rejected."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.scaling.laws.compute_units import CORE_DAYS, FLOPS, find_unit
from vit_scaling.scaling.laws.run_tables import Columns, read_runs


@pytest.mark.parametrize(
    ("text", "unit", "factor"),
    [
        ("flops", FLOPS, 1),
        ("Training FLOP", FLOPS, 1),
        ("gflops_total", FLOPS, 1e9),
        ("GFLOPs", FLOPS, 1e9),
        ("TFLOPs (train)", FLOPS, 1e12),
        ("exaflops", FLOPS, 1e18),
        ("gmacs_total", FLOPS, 2e9),  # A multiply and an add.
        ("MACs", FLOPS, 2),
        ("PF-days", FLOPS, 1e15 * 86_400),
        ("petaflop/s-days", FLOPS, 1e15 * 86_400),
        ("core_days", CORE_DAYS, 1),
        ("TPUv3 core-days", CORE_DAYS, 1),
        ("core hours", CORE_DAYS, 1 / 24),
    ],
)
def test_units_are_read_from_names(text, unit, factor):
    found = find_unit(text)
    assert found.unit == unit
    assert found.factor == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    ["GPU hours", "H100 days", "A100 core-days", "v4 core days", "cost", "params", ""],
)
def test_units_that_are_not_known_are_not_guessed(text):
    assert find_unit(text) is None


def table(tmp_path, column, values):
    path = tmp_path / "runs.csv"
    rows = [f"m{n},{value},0.{9 - n}" for n, value in enumerate(values)]
    path.write_text("\n".join([f"model,{column},error", *rows]))
    return path


@pytest.mark.parametrize(
    ("column", "factor"), [("gflops_total", 1e9), ("gmacs", 2e9), ("flops", 1)]
)
def test_a_column_is_converted_to_flops(tmp_path, column, factor):
    path = table(tmp_path, column, [1e9, 3e9])
    runs = read_runs(path, columns=Columns(compute=column))
    assert runs.compute_unit == FLOPS
    np.testing.assert_allclose(runs.compute, np.array([1e9, 3e9]) * factor)


def test_an_unknown_unit_asks_for_the_flag(tmp_path):
    path = table(tmp_path, "GPU hours", [10, 30])
    columns = Columns(compute="GPU hours")
    with pytest.raises(ValueError, match=r"'GPU hours' is not known.*--compute_unit"):
        read_runs(path, columns=columns)
    runs = read_runs(path, columns=columns, compute_unit="pf_days")
    np.testing.assert_allclose(runs.compute, np.array([10, 30]) * 1e15 * 86_400)
    with pytest.raises(ValueError, match="--compute_unit 'hours' is not known"):
        read_runs(path, columns=columns, compute_unit="hours")


def test_a_model_without_a_patch_has_no_shape(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("model,flops,error\nTi,1e9,0.5\nTi/16,2e9,0.4\n")
    first, second = read_runs(path)
    assert first.shape is None and second.shape.patch == 16
