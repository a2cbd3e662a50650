"""Cells become runs: targets, derived compute, missing cells, messages."""
# SPDX-License-Identifier: Apache-2.0

import math

import numpy as np
import pandas as pd
import pytest

from vit_scaling.scaling.laws.row_reader import is_accuracy, parse_quantity
from vit_scaling.scaling.laws.run_tables import runs_from


def table(**columns):
    return pd.DataFrame({"flops": [1e18, 4e18], **columns})


def test_quantities_have_suffixes():
    texts = ("30M", "1.2e3", "3B", "20K", "1.4T")
    assert [parse_quantity(t) for t in texts] == [3e7, 1200, 3e9, 2e4, 1.4e12]
    with pytest.raises(ValueError, match="Write decimals with a point"):
        parse_quantity("2,5")


def test_a_loss_may_be_any_positive_number_and_stays_as_it_is():
    runs = runs_from(table(loss=[5.0, 1.99]))
    assert (list(runs.error), runs.target, runs.metrics) == (
        [5.0, 1.99],
        "loss",
        ["loss"],
    )


def test_a_loss_in_another_column_is_named_by_its_argument():
    runs = runs_from(table(final=[5.0, 1.99]), loss="final")
    assert (runs.target, list(runs.error)) == ("loss", [5.0, 1.99])


def test_perplexity_is_turned_into_the_loss():
    runs = runs_from(table(ppl=[math.e**3, math.e**2]))
    assert (runs.target, list(runs.error)) == ("loss", pytest.approx([3, 2]))
    assert "loss: log of 'ppl'" in runs.notes[0]
    with pytest.raises(ValueError, match=r"row 1: column 'ppl': a perplexity must be"):
        runs_from(table(ppl=[20.0, 0.5]))


@pytest.mark.parametrize("column", ["acc1", "top1", "accuracy"])
def test_an_accuracy_is_turned_into_the_error_and_the_notes_say_so(column):
    runs = runs_from(table(**{column: [0.25, 0.75]}))
    assert (list(runs.error), runs.target) == ([0.75, 0.25], "error")
    assert f"error: 1 - '{column}' as a fraction" in runs.notes[0]


def test_accuracies_in_percent_are_declared_by_name_or_argument():
    for runs in (
        runs_from(table(acc=[25.0, 75.0]), error_unit="percent"),
        runs_from(table(**{"accuracy_pct": [25.0, 75.0]})),
        runs_from(table(**{"top (%)": [25.0, 75.0]}), accuracy="top (%)"),
    ):
        assert list(runs.error) == [0.75, 0.25]
    with pytest.raises(ValueError, match=r"'acc': an accuracy must .*=percent"):
        runs_from(table(acc=[25.0, 75.0]))


def test_compute_is_derived_from_parameters_and_tokens():
    data = pd.DataFrame({"N": [1e8], "D": [2e9], "loss": [3.0]})
    runs = runs_from(data)
    assert (runs.compute[0], runs.compute_unit) == (6 * 1e8 * 2e9, "flops")
    assert "compute = 6 × parameters × examples FLOPs in 1 rows." in runs.notes


def test_compute_of_named_shapes_is_counted_by_the_function_given():
    data = pd.DataFrame({"model": ["B/16"], "images_seen": [1e9], "error": [0.3]})
    runs = runs_from(data, flops_per_example=lambda shape: 100.0 * shape.depth)
    assert runs.compute[0] == 1200 * 1e9
    with pytest.raises(ValueError, match="--size_column and --examples_column"):
        runs_from(data)


def test_models_without_a_name_have_their_size():
    runs = runs_from(table(N=[162.766e6, 4.2e9], loss=[3, 2]))
    assert [run.model for run in runs] == ["162.8M", "4.2B"]


def test_a_variant_without_its_patch_needs_no_shape_where_its_size_is_known():
    runs = runs_from(table(model=["S", "B"], params=[2e7, 9e7], loss=[3, 2]))
    assert [run.shape for run in runs] == [None, None]
    with pytest.raises(ValueError, match="Write S/32 or S/16"):
        runs_from(table(model=["S", "B"], loss=[3, 2]))


def test_examples_are_derived_from_parameters_and_flops():
    data = pd.DataFrame({"Model Size": [1e8], "Training PFLOP": [1.2e3], "loss": [3]})
    runs = runs_from(data)
    assert runs.images_seen[0] == pytest.approx(1.2e18 / (6 * 1e8))
    assert "examples = FLOPs / (6 × parameters) in 1 rows." in runs.notes


@pytest.mark.parametrize("missing", [None, np.nan, "", "NA", "-"])
def test_missing_cells_matter_only_in_compute_and_target(missing):
    data = pd.DataFrame(
        {
            "flops": [1e18, missing, 3e18, 4e18],
            "loss": [3.0, 2.0, missing, 1.5],
            "seed": [missing, 1, 2, 3],
            "params": [1e8, 1e8, 1e8, missing],
        },
        dtype=object,
    )
    runs = runs_from(data)
    assert list(runs.error) == [3.0, 1.5]
    assert [run.parameters for run in runs] == [1e8, None]
    assert "1 rows without compute are left out, the first in row 1." in runs.notes
    assert "1 rows without loss are left out, the first in row 2." in runs.notes


def test_a_table_without_a_usable_row_says_why():
    with pytest.raises(ValueError, match=r"no usable row.*2 rows without loss"):
        runs_from(table(loss=[np.nan, np.nan]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"loss": ["3.0", "2,5"]}, r"row 1: column 'loss': A number .*--loss_column"),
        ({"loss": [3.0, -1.0]}, r"row 1: .*loss of 0 or more.*'loss'; --loss_column"),
        (
            {"loss": [3.0, 2.0], "n": [0, 1]},
            r"`param.*Column 'n'; --size_column",
        ),
        ({"loss": [3, np.inf]}, r"row 1: .*finite loss"),
    ],
)
def test_messages_name_row_column_rule_and_flag(columns, message):
    with pytest.raises(ValueError, match=message):
        runs_from(table(**columns))


def test_zero_compute_names_row_column_and_flag():
    data = pd.DataFrame({"flops": [1e18, 0.0], "loss": [3.0, 2.0]})
    match = r"row 1: `compute` must be .*Column 'flops'; --compute_column"
    with pytest.raises(ValueError, match=match):
        runs_from(data)


def test_identical_rows_count_once_and_different_ones_need_a_seed(tmp_path):
    data = pd.DataFrame({"model": ["a", "a"], "flops": [1e18] * 2, "loss": [3.0] * 2})
    data.to_csv(tmp_path / "runs.csv", index=False)
    for source in (data, tmp_path / "runs.csv"):
        runs = runs_from(source)
        assert len(runs) == 1
        assert "1 repeated rows are counted once." in runs.notes
    match = r"row 0 and row 1 are duplicate runs.*--seed_column\)"
    with pytest.raises(ValueError, match=match + ", or remove one"):
        runs_from(data.assign(loss=[3.0, 2.9]))
    match += r", or .* they differ \(family\) with --where or --group_by"
    with pytest.raises(ValueError, match=match):
        runs_from(data.assign(loss=[3.0, 2.9], family=["x", "y"]))
    assert len(runs_from(data.assign(loss=[3.0, 2.9], seed=[0, 1]))) == 2


def test_checkpoints_of_one_training_run_are_one_cluster():
    data = pd.DataFrame(
        {"flops": [1e18, 2e18, 1e18, 4e18], "loss": [3, 2.5, 2.4, 2], "model": "abcd"}
    ).assign(run=["x", "x", "y", ""], model=["a", "a", "b", "b"])
    assert list(runs_from(data).clusters) == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("column", "expected"),
    [("acc1", True), ("top1_accuracy", True), ("accelerator", False), ("err", False)],
)
def test_names_of_accuracies(column, expected):
    assert is_accuracy(column) is expected
