"""The planner's memory against that of compiled programs, as recorded.

`-m slow` compiles a sample of them again.
"""
# SPDX-License-Identifier: Apache-2.0

import statistics

import pytest

from tests.docs.pages_test import load_tool
from vit_scaling.preflight import environment
from vit_scaling.preflight.targets import find_target
from vit_scaling.scaling.planning.devices import GIB

record = load_tool("record_planner_memory")
ROWS = record.read_rows()
MARGIN = 0.05  # Of the device's memory.


@pytest.fixture(scope="module")
def planned() -> list[float]:
    """Return the planner's memory of each row, in GiB."""
    return [record.plan_bytes(row) / GIB for row in ROWS]


@pytest.mark.parametrize("use", ["fit", "check"])
def test_the_planner_is_near_the_compilers(planned, use):
    errors = [
        abs(size / float(row["compiler, GiB"]) - 1)
        for row, size in zip(ROWS, planned, strict=True)
        if row["used for"] == use
    ]
    assert statistics.median(errors) <= 0.05
    assert max(errors) <= 0.12


def test_many_programs_were_compiled_and_some_do_not_fit():
    assert len(ROWS) >= 40
    assert sum(row["fits"] == "no" for row in ROWS) >= 4
    assert {"a100_40gb", "a100_80gb", "h100", "l4"} <= {r["topology"] for r in ROWS}


def test_programs_to_which_nothing_was_fitted_are_near_too(planned):
    """Except GPU programs near the memory, of which XLA recomputes a part."""
    errors = []
    for row, size in zip(ROWS, planned, strict=True):
        device, compiled = find_target(row["topology"]).device, row["compiler, GiB"]
        is_near = float(compiled) > 0.75 * device.memory_bytes / GIB
        if row["used for"] == "hold-out" and not (is_near and not device.tpu):
            errors.append(abs(size / float(compiled) - 1))
    assert statistics.median(errors) <= 0.05
    assert max(errors) <= 0.12


def test_what_the_planner_says_fits_does_with_a_margin(planned):
    for row, size in zip(ROWS, planned, strict=True):
        limit = find_target(row["topology"]).device.memory_bytes / GIB
        assert row["fits"] == "yes" or size > (1 - MARGIN) * limit


def test_the_record_has_the_planners_present_values(planned):
    recorded = [float(row["planner, GiB"]) for row in ROWS]
    assert recorded == pytest.approx(planned, abs=0.001)


@pytest.mark.slow
@pytest.mark.parametrize("toolchain", [environment.TPU, environment.GPU])
def test_a_sample_compiles_to_the_recorded_memory(toolchain):
    """The smallest program for each of the two compilers."""
    rows = [r for r in ROWS if find_target(r["topology"]).toolchain is toolchain]
    row = min(rows, key=lambda row: float(row["compiler, GiB"]))
    report = record.compile_row(row)
    assert report["total_bytes"] / GIB == pytest.approx(
        float(row["compiler, GiB"]), abs=0.001
    )
