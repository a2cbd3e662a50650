"""Rows are selected and grouped by conditions on any column."""
# SPDX-License-Identifier: Apache-2.0

import pandas as pd
import pytest

from vit_scaling.scaling.laws.row_filters import select_rows, split_groups
from vit_scaling.scaling.laws.run_tables import grouped_runs_from, runs_from

TABLE = pd.DataFrame(
    {
        "upstream_set": ["L-2B", "L-2B", "L-400M", "black and white"],
        "params": ["10", "20", "30", "40"],
        "loss": [4.0, 3.0, 2.0, 1.0],
        "flops": [1e18, 2e18, 3e18, 4e18],
    }
)


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("", [0, 1, 2, 3]),
        ("upstream=L-2B", [0, 1]),
        ("upstream != L-2B", [2, 3]),
        ("params>=20 and params < 40", [1, 2]),
        ("params=20", [1]),
        ("upstream=L-2B and loss<=3", [1]),
        ("upstream='black and white'", [3]),
        ('upstream="black and white" and loss<2', [3]),
        ("loss == 2.0", [2]),
    ],
)
def test_conditions_select_rows(where, kept):
    assert list(select_rows(TABLE, where, "t").index) == kept


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("upstream", "'upstream' of --where cannot be read"),
        ("upstrem=x", "no column 'upstrem' for where. Its columns are"),
        ("upstream=L-2Bs", "Did you mean 'L-2B'.*Values of 'upstream_set'"),
        ("upstream>L", "are not numbers"),
        ("loss>99", "No row of t has loss>99"),
    ],
)
def test_bad_conditions_are_explained(where, message):
    with pytest.raises(ValueError, match=message):
        select_rows(TABLE, where, "t")


def test_groups_keep_the_order_of_the_table():
    groups = list(split_groups(TABLE, "upstream", "t"))
    assert [name for name, _ in groups] == ["L-2B", "L-400M", "black and white"]
    assert [len(rows) for _, rows in groups] == [2, 1, 1]


def test_runs_of_groups():
    groups = grouped_runs_from(TABLE, "upstream", where="loss>1")
    assert {name: len(runs) for name, runs in groups.items()} == {
        "L-2B": 2,
        "L-400M": 1,
    }
    assert len(runs_from(TABLE, where="upstream=L-2B")) == 2
