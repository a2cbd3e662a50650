"""Tables have one cell per column and leave nothing out."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.scaling.example_runs import grid_of_runs
from vit_scaling.scaling.laws.law_estimates import LawOptions
from vit_scaling.scaling.studies import result_tables
from vit_scaling.scaling.studies.analysis import analyse

ROWS = {
    "coefficients": lambda result: 5,  # And the error in the middle.
    "predictions": lambda result: len(result["predictions"]),
    "hidden_runs": lambda result: len(result["hindcasts"]),
    "laws": lambda result: len(result["laws"]),
    "bottlenecks": lambda result: 3,
    "sample_efficiency": lambda result: len(result["reading"]["sample_efficiency"]),
    "frontier": lambda result: result["frontier_runs"],
}


@pytest.fixture(scope="module")
def result():
    return analyse(grid_of_runs(), LawOptions(resamples=20), compare=True)


@pytest.mark.parametrize("name", ROWS)
def test_every_row_of_the_result_is_in_its_table(name, result):
    header, rows = getattr(result_tables, f"{name}_table")(result)
    assert len(rows) == ROWS[name](result)
    assert all(len(row) == len(header) for row in rows)
    assert all(isinstance(cell, str) for row in rows for cell in row)


def test_images_are_bounded_where_the_shortest_run_already_reaches_the_error():
    row = {"error": 0.3, "images": {"a": 1e6, "b": 2e6, "c": None}, "at_most": ["a"]}
    result = {"reading": {"sample_efficiency": [row]}}
    header, rows = result_tables.sample_efficiency_table(result)
    assert header == ["error", "a", "b", "c"]
    assert rows == [["0.3000", "≤ 1M", "2M", "–"]]
