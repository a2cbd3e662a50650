"""Columns are found by synonyms, by prefixes, and as named."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.scaling.laws.columns import (
    SYNONYMS,
    TARGET_FIELDS,
    ColumnNames,
    find_column,
    find_columns,
    normalize,
)

CHINCHILLA = ["x", "y", "color", "Model Size", "Training FLOP", "hex_color", "loss"]
HOURS = ["model_params", "tokens", "gpu_hours", "val_loss"]
BENCHMARK = ["Domain", "Task", "Model", "Seen Examples", "Loss", "Training"]


def test_public_headers_are_found_as_they_are():
    assert find_columns(CHINCHILLA, {}, "t") == {
        "size": "Model Size",
        "compute": "Training FLOP",
        "loss": "loss",
    }
    assert find_columns(HOURS, {}, "t") == {
        "size": "model_params",
        "examples": "tokens",
        "compute": "gpu_hours",
        "loss": "val_loss",
    }
    assert find_columns(BENCHMARK, {}, "t") == {
        "model": "Model",
        "examples": "Seen Examples",
        "loss": "Loss",
        "metric": "Task",
    }


def test_a_named_target_excludes_the_others():
    header = ["flops", "error", "loss", "final"]
    assert find_columns(header, {}, "t").keys() & {*TARGET_FIELDS} == {"error"}
    assert find_columns(header, {"loss": "final"}, "t")["loss"] == "final"
    with pytest.raises(ValueError, match="received error and loss"):
        find_columns(header, {"loss": "loss", "error": "error"}, "t")


def test_a_unit_is_a_name_of_compute():
    for name in ("GPU hours", "pf_days", "gmacs_total", "A100 days"):
        assert find_columns([name, "loss"], {}, "t")["compute"] == name


def test_names_may_be_shortened_if_one_column_begins_so():
    header = ["upstream_dataset", "downstream_dataset", "acc1", "acc5"]
    assert find_column(header, "upstream", "where", "t") == "upstream_dataset"
    assert find_column(header, "Upstream-Dataset", "where", "t") == "upstream_dataset"
    with pytest.raises(ValueError, match=r"Several begin so: acc1, acc5.*--where"):
        find_column(header, "acc", "where", "t")
    with pytest.raises(ValueError, match=r"no column 'up' for error.*--error_column"):
        find_column(["a"], "up", "error", "t")


def test_an_unknown_field_is_rejected():
    with pytest.raises(ValueError, match="Did you mean 'error'"):
        find_columns(["error"], {"eror": "error"}, "t")


def test_no_name_stands_for_two_fields():
    names = [name for names in SYNONYMS.values() for name in names]
    assert len(names) == len(set(names))
    assert all(normalize(name) == name for name in names)
    assert ColumnNames.__annotations__.keys() == SYNONYMS.keys() - {"target"}
