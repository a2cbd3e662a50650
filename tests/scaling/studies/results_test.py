"""Tables and pages of results."""
# SPDX-License-Identifier: Apache-2.0

import pandas as pd

from tests.scaling.example_runs import runs_on_law
from vit_scaling import scaling
from vit_scaling.scaling.studies.results import (
    format_cell,
    format_table,
    interval_table,
    records,
)


def test_cells_have_four_digits_and_missing_ones_are_empty():
    cells = [format_cell(v) for v in (1.23456789, float("nan"), None, "x", 3)]
    assert cells == ["1.235", "", "", "x", "3"]


def test_a_named_index_is_a_column():
    table = interval_table({"a": 1.0, "b": 2.0}, {"a": (0.5, 1.5)})
    header, rows = format_table(table)
    assert header == ["coefficient", "value", "low", "high"]
    assert rows == [["a", "1", "0.5", "1.5"], ["b", "2", "", ""]]
    assert records(table)[1] == {
        "coefficient": "b", "value": 2.0, "low": None, "high": None,
    }  # fmt: skip
    assert format_table(pd.DataFrame({"x": [1.0]})) == (["x"], [["1"]])


def test_one_page_about_several_groups(tmp_path):
    law = scaling.fit(runs_on_law(), form="m2", resamples=20)
    page = scaling.write_report({"one": law, "<two>": law}, tmp_path / "r.html")
    text = page.read_text()
    assert text.count("data:image/png") == 2
    assert "&lt;two&gt;" in text and "<two>" not in text
