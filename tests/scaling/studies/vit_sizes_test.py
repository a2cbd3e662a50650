"""Sizes of named shapes are Table 2's."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import pytest

from tests.scaling.example_runs import grid_of_runs
from vit_scaling.modeling.shapes import SHAPES
from vit_scaling.scaling.laws.runs import Runs
from vit_scaling.scaling.studies.vit_sizes import fill_sizes, training_flops


def test_sizes_are_filled_where_they_are_missing():
    rows = list(grid_of_runs())
    rows[0] = dataclasses.replace(rows[0], parameters=7)
    rows[1] = dataclasses.replace(rows[1], shape=None)
    filled = fill_sizes(Runs(tuple(rows), ("note",)))
    assert [run.parameters for run in filled][:2] == [7, None]
    assert filled.parameters[-1] == pytest.approx(303e6, rel=0.01)  # L/16: 303M.
    assert filled.notes == ("note",)


def test_training_takes_three_times_the_forward_pass():
    # Table 2: G/14 has 2859.9 GFLOPs forward at 384 pixels, 965.3 at 224.
    assert training_flops(SHAPES["G/14"]) == pytest.approx(3 * 965.3e9, rel=0.03)
