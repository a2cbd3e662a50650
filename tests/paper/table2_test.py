"""Table 2 of the paper: dimensions and exact parameter counts of the eleven shapes."""
# SPDX-License-Identifier: Apache-2.0

import csv
import math
import pathlib

import keras
import pytest

from vit_scaling.modeling.shapes import SHAPES, shape_named
from vit_scaling.modeling.vit import vit

TABLE = pathlib.Path(__file__).parent / "table2.csv"
ROWS = list(csv.DictReader(TABLE.read_text().splitlines()))
NAMES = [row["name"] for row in ROWS]


@pytest.fixture(autouse=True)
def no_variable_is_ever_filled():
    """Drop the unfilled variables, or Keras would fill them at its next scope."""
    yield
    keras.backend.clear_session()


def parameters(name, head):
    """Count what our layers create at 224 px, without memory for the values."""
    with keras.StatelessScope(initialize_variables=False):
        model = vit(name, head, image_size=224, classes=None)
    return sum(math.prod(variable.shape) for variable in model.variables)


def test_the_first_eleven_shapes_are_table_2_in_its_order():
    assert list(SHAPES)[: len(ROWS)] == NAMES


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_dimensions_are_the_papers(row):
    shape = shape_named(row["name"])
    assert shape.patch == int(row["name"].partition("/")[2])
    for field in ("width", "depth", "mlp_width", "heads"):
        assert getattr(shape, field) == int(row[field])


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_parameters_are_exact_without_and_with_map_head(row):
    body = parameters(row["name"], "gap")
    assert body == int(row["parameters"])
    printed = row["million_parameters"]
    digits = len(printed.partition(".")[2])
    assert round(body / 1e6, digits) == float(printed)
    assert parameters(row["name"], "map") == int(row["parameters_with_map_head"])


def test_counting_without_memory_equals_counting_a_filled_model():
    model = vit("s/28", "map", classes=None)
    assert model.count_params() == parameters("s/28", "map")


def test_vit_g_has_256_tokens_with_a_map_head_and_257_with_a_class_token():
    for head, tokens in (("map", 256), ("gap", 256), ("token", 257)):
        with keras.StatelessScope(initialize_variables=False):
            shape = shape_named("G/14")
            model = vit(shape.__class__(14, 64, 1, 64, 4), head)
        assert model.get_layer("encoder_norm").output.shape == (None, tokens, 64)
