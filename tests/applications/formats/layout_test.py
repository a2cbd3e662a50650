"""Forms invert each other, and what a model needs is known without building it."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from tests.applications.cases import TINY
from vit_scaling.applications.formats import big_vision, huggingface, layout, own, timm
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
def test_expected_variables_are_those_of_the_model(options):
    model = vit(**arguments_of(options))
    built = {v.path: tuple(v.shape) for v in model.variables}
    assert layout.expected_variables(arguments_of(options)) == built


@pytest.mark.parametrize("options", MODELS, ids=str)
def test_arguments_are_read_off_a_model(options):
    weights = own.weights_of(vit(**arguments_of(options)))
    for name, value in arguments_of(options).items():
        assert weights.arguments[name] == value, name
    again = own.read_own(own.write_own(weights))
    assert again.arguments == weights.arguments
    for path, value in weights.variables.items():
        np.testing.assert_array_equal(again.variables[path], value)


def test_other_models_are_no_vit():
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="is no Vision Transformer of this package"):
        own.weights_of(model)


def test_a_head_without_a_name_can_not_be_written():
    import keras

    class MaxHead(keras.layers.Layer):
        uses_class_token = False

        def call(self, tokens):
            return keras.ops.max(tokens, axis=1)

    model = vit(TINY, lambda shape: MaxHead(name="max_head"), image_size=4, classes=3)
    with pytest.raises(ValueError, match="has a head of its own"):
        own.weights_of(model)


def test_own_file_that_was_tampered_with_is_refused():
    weights = own.weights_of(vit(**arguments_of({"head": "gap"})))
    arrays = own.write_own(weights)
    arrays["encoder_norm/beta"] = arrays["encoder_norm/beta"][:-1]
    with pytest.raises(ValueError, match="encoder_norm/beta"):
        own.read_own(arrays)


@pytest.mark.parametrize(
    ("form", "shape"),
    [
        (layout.SAME, (3, 4)),
        (layout.LINEAR, (3, 4)),
        (layout.PATCHES, (8, 3, 2, 2)),
        (layout.TO_HEADS, (6, 5)),
        (layout.HEADS_BIAS, (6,)),
        (layout.FROM_HEADS, (5, 6)),
        (layout.NO_BATCH, (4, 8)),
    ],
)
def test_forms_invert_each_other(form, shape):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.testing.assert_array_equal(form.from_ours(form.to_ours(array, 2), 2), array)


def test_projection_to_heads_is_the_linear_layer_it_was():
    random = np.random.default_rng(0)
    weight, x = random.normal(size=(6, 5)), random.normal(size=5)
    kernel = layout.TO_HEADS.to_ours(weight, 2)
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
    known = layout.expected_variables(
        {
            "shape": TINY, "image_size": 4, "head": "map", "classes": 3,
            "layer_scale": 1.0, "qk_norm": True, "representation_width": 5,
        }
    )  # fmt: skip
    for path in paths:
        if path != "class_token/token":
            assert path.format(block=1) in known


def test_variants_are_found_by_their_numbers():
    assert layout.variants_like(384, 12, 1536) == ["S"]
    assert layout.variants_like(7, 1, 1) == []


def test_blocks_must_be_numbered_without_a_gap():
    assert layout.count_blocks(["b.0.x", "b.1.x", "c"], r"b\.(\d+)\.") == 2
    with pytest.raises(ValueError, match=r"found \[0, 2\]"):
        layout.count_blocks(["b.0.x", "b.2.x"], r"b\.(\d+)\.")
