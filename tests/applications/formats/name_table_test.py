"""Forms invert each other, and what a model needs is known without building it."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.applications.cases import TINY
from vit_scaling.applications.formats import (
    big_vision,
    huggingface,
    name_table,
    native_npz,
    timm,
)
from vit_scaling.applications.formats.keras_models import weights_of_model
from vit_scaling.applications.formats.vit_weights import ReadOptions
from vit_scaling.modeling.variables import vit_variables
from vit_scaling.modeling.vit import vit

MODELS = [
    {"head": "map"},
    {"head": "gap", "position": "sincos"},
    {"head": "token", "representation_width": 5, "register_tokens": 3},
    {"head": "map", "layer_scale": 0.1, "qk_norm": True, "classes": None},
    {"head": "none", "classes": None, "approximate_gelu": False, "norm_epsilon": 1e-12},
]


def arguments_of(options):
    return {"shape": TINY, "image_size": (4, 6), "classes": 3, **options}


@pytest.mark.parametrize("options", MODELS, ids=str)
def test_listed_variables_are_those_of_the_model(options):
    model = vit(**arguments_of(options))
    built = {v.path: tuple(v.shape) for v in model.variables}
    assert vit_variables(**arguments_of(options)) == built


@pytest.mark.parametrize("options", MODELS, ids=str)
def test_arguments_are_read_off_a_model(options):
    weights = weights_of_model(vit(**arguments_of(options)))
    for name, value in arguments_of(options).items():
        assert weights.arguments[name] == value, name
    again = native_npz.read_native(native_npz.write_native(weights), ReadOptions())
    assert again.arguments == weights.arguments
    for path, value in weights.variables.items():
        np.testing.assert_array_equal(again.variables[path], value)


def test_other_models_are_no_vit():
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="is not a Vision Transformer of this package"):
        weights_of_model(model)


def test_a_head_without_a_name_can_not_be_written():
    import keras

    class MaxHead(keras.layers.Layer):
        uses_class_token = False

        def call(self, tokens):
            return keras.ops.max(tokens, axis=1)

    model = vit(TINY, lambda shape: MaxHead(name="max_head"), image_size=4, classes=3)
    with pytest.raises(ValueError, match="has a custom head"):
        weights_of_model(model)


def test_own_file_that_was_tampered_with_is_rejected():
    weights = weights_of_model(vit(**arguments_of({"head": "gap"})))
    arrays = native_npz.write_native(weights)
    arrays["encoder_norm/beta"] = arrays["encoder_norm/beta"][:-1]
    with pytest.raises(ValueError, match="encoder_norm/beta"):
        native_npz.read_native(arrays, ReadOptions())


@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        (name_table.COPY, (3, 4)),
        (name_table.TRANSPOSE, (3, 4)),
        (name_table.CONVOLUTION, (8, 3, 2, 2)),
        (name_table.TO_HEADS, (6, 5)),
        (name_table.HEADS_BIAS, (6,)),
        (name_table.FROM_HEADS, (5, 6)),
        (name_table.ADD_BATCH_AXIS, (4, 8)),
    ],
)
def test_transforms_invert_each_other(transform, shape):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    again = transform.to_source(transform.to_keras(array, 2), 2)
    np.testing.assert_array_equal(again, array)


def test_projection_to_heads_is_the_linear_layer_it_was():
    random = np.random.default_rng(0)
    weight, x = random.normal(size=(6, 5)), random.normal(size=5)
    kernel = name_table.TO_HEADS.to_keras(weight, 2)
    assert kernel.shape == (5, 2, 3)
    np.testing.assert_allclose(
        np.einsum("d,dhe->he", x, kernel).reshape(-1), weight @ x, rtol=1e-12
    )


@pytest.mark.parametrize(
    "table",
    [big_vision.TABLE, timm.TABLE, huggingface.VIT_TABLE, huggingface.SIGLIP_TABLE],
)
def test_no_two_rows_of_a_table_make_the_same_variable(table):
    paths = [row.path for row in table]
    assert len(set(paths)) == len(paths)
    known = vit_variables(
        **{
            "shape": TINY,
            "image_size": 4,
            "head": "map",
            "classes": 3,
            "layer_scale": 1.0,
            "qk_norm": True,
            "norm_before_blocks": True,
            "representation_width": 5,
        }
    )
    for path in paths:
        if path not in ("class_token/token", "register_tokens/tokens"):
            assert path.format(block=1) in known
