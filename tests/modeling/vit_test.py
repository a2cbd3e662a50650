"""The whole model against the oracle, in every way it can be run, saved and misused."""
# SPDX-License-Identifier: Apache-2.0

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.modeling.small import (
    IMAGE_SIZE,
    SHAPE,
    images,
    relative_error,
    small_vit,
    weights,
)
from tests.oracles.vit_forward import norm, vit_forward
from vit_scaling.modeling.vit import outputs_at, vit

# float32 keeps 24 bits; some hundred sums of it stay well within this.
TOLERANCE = 1e-5
OPTIONS = {
    "defaults": {},
    "sincos": {"position": "sincos"},
    "tanh_projection": {"representation_width": 7},
    "options": {
        "approximate_gelu": False,
        "norm_epsilon": 1e-3,
        "layer_scale": 0.3,
        "qk_norm": True,
        "register_tokens": 3,
        "norm_before_blocks": True,
    },
}


def oracle(model, pixels, head, **options):
    return vit_forward(
        pixels,
        weights(model),
        heads=SHAPE.heads,
        depth=SHAPE.depth,
        head=head,
        position=options.get("position", "learned"),
        approximate_gelu=options.get("approximate_gelu", True),
        epsilon=options.get("norm_epsilon", 1e-6),
    )


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("head", ["token", "gap", "map", "none"])
def test_forward_pass_equals_the_oracle(head, options):
    model, pixels = small_vit(head, **options), images()
    expected = oracle(model, pixels, head, **options)
    actual = outputs_at(model, list(expected))(pixels)
    for name, value in expected.items():
        assert relative_error(actual[name], value) < TOLERANCE, name


def test_norm_can_follow_the_average():
    model, pixels = small_vit("gap", norm_after_pooling=True), images()
    names = [f"block_{SHAPE.depth - 1:02d}", "encoder_norm", "head"]
    found = {k: np.asarray(v) for k, v in outputs_at(model, names)(pixels).items()}
    w = weights(model)
    mean = found[names[0]].astype(np.float64).mean(axis=1)
    normed = norm(mean, w, "encoder_norm", 1e-6)
    assert relative_error(found["encoder_norm"], normed) < TOLERANCE
    logits = normed @ w["head/kernel"] + w["head/bias"]
    assert relative_error(found["head"], logits) < TOLERANCE
    with pytest.raises(ValueError, match="requires head='gap'; received head='map'"):
        small_vit("map", norm_after_pooling=True)


@pytest.mark.parametrize("head", ["token", "map"])
def test_eager_graph_and_xla_agree_with_the_oracle(head):
    model, pixels = small_vit(head), images()
    expected = oracle(model, pixels, head)["head"]
    for call in (model, tf.function(model), tf.function(model, jit_compile=True)):
        assert relative_error(call(pixels), expected) < TOLERANCE


def test_gradients_agree_between_eager_graph_and_xla():
    model, pixels = small_vit("map", qk_norm=True), images()

    def gradients(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True) ** 2)
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    expected = gradients(pixels)
    for call in (tf.function(gradients), tf.function(gradients, jit_compile=True)):
        for actual, value in zip(call(pixels), expected, strict=True):
            np.testing.assert_allclose(actual, value, rtol=1e-3, atol=1e-4)


def test_the_small_weights_of_a_table_2_shape_agree_with_the_oracle():
    pixels = images(1, (32, 32))
    model = vit("s/16", "map", image_size=32, classes=4, seed=3)
    expected = vit_forward(pixels, weights(model), heads=8, depth=6, head="map")
    actual = outputs_at(model, ["pre_logits"])(pixels)["pre_logits"]
    assert relative_error(actual, expected["pre_logits"]) < TOLERANCE


# Keras reads variables with numpy.array, for which TensorFlow raises this warning.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("head", ["token", "map"])
def test_config_keras_file_and_clone_give_the_same_model(head, tmp_path):
    options = {**OPTIONS["options"], "dropout": 0.1, "stochastic_depth": 0.1}
    model, pixels = small_vit(head, **options), images()
    expected = model(pixels).numpy()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    rebuilt = keras.Model.from_config(model.get_config())
    clone = keras.models.clone_model(model)
    for copy in (rebuilt, clone):
        for variable, original in zip(copy.variables, model.variables, strict=True):
            variable.assign(original)
    for copy in (loaded, rebuilt, clone):
        assert [v.path for v in copy.variables] == [v.path for v in model.variables]
        np.testing.assert_array_equal(copy(pixels), expected)


def test_saved_model_takes_any_batch_and_gives_the_same_logits(tmp_path):
    model = small_vit("map", dropout=0.1, rematerialize="all")
    model.export(tmp_path, verbose=False)
    loaded = tf.saved_model.load(tmp_path)
    for batch in (1, 4):
        pixels = images(batch)
        assert relative_error(loaded.serve(pixels), model(pixels)) < 1e-6


def test_mixed_bfloat16_keeps_variables_and_logits_float32():
    model, pixels = small_vit("map", dtype="mixed_bfloat16"), images()
    assert {v.dtype for v in model.variables} == {"float32"}
    assert model.get_layer("block_01").output.dtype == "bfloat16"
    logits = model(pixels)
    assert logits.dtype == tf.float32
    expected = oracle(model, pixels, "map")["head"]
    assert relative_error(logits, expected) < 0.05  # bfloat16 keeps 8 bits.
    assert relative_error(logits, expected) > 1e-4  # It was really used.


def test_layers_are_called_as_documented():
    options = {"register_tokens": 2, "norm_before_blocks": True}
    model = small_vit("token", representation_width=8, **options)
    assert [layer.name for layer in model.layers] == [
        "images",
        "patch_embedding",
        "position_embedding",
        "class_token",
        "register_tokens",
        "embedding_norm",
        "block_00",
        "block_01",
        "drop_registers",
        "encoder_norm",
        "token_head",
        "pre_logits",
        "head",
    ]


def test_variable_paths_and_shapes_are_the_authors_layout():
    shapes = {v.path: tuple(v.shape) for v in small_vit("map").variables}
    assert shapes["patch_embedding/kernel"] == (4, 4, 3, 16)
    assert shapes["position_embedding/embedding"] == (1, 12, 16)
    assert shapes["block_01/attention/query/kernel"] == (16, 2, 8)
    assert shapes["block_01/attention/query/bias"] == (2, 8)
    assert shapes["block_01/attention/out/kernel"] == (2, 8, 16)
    assert shapes["block_01/attention/out/bias"] == (16,)
    assert shapes["block_01/mlp/dense_0/kernel"] == (16, 24)
    assert shapes["block_01/mlp_norm/gamma"] == (16,)
    assert shapes["map_head/probe"] == (1, 1, 16)
    assert shapes["map_head/attention/value/kernel"] == (16, 2, 8)
    assert shapes["map_head/mlp/dense_1/bias"] == (16,)
    assert shapes["head/kernel"] == (16, 5)
    assert len(shapes) == 2 + 1 + 2 * 16 + 2 + (1 + 8 + 2 + 4) + 2


def test_the_classifier_starts_at_its_bias():
    model = vit(SHAPE, image_size=IMAGE_SIZE, classes=6, head_bias=-10.0)
    np.testing.assert_array_equal(model(images()), np.full((3, 6), -10.0))


def test_without_classes_the_output_is_pre_logits():
    model = vit(SHAPE, "gap", image_size=IMAGE_SIZE, classes=None)
    assert model.output_shape == (None, 16)
    assert model.output_names == ["pre_logits"]


def test_the_seed_decides_the_initial_values_and_no_two_variables_share_them():
    first, again, other = (vit(SHAPE, image_size=8, seed=s) for s in (1, 1, 2))
    for a, b in zip(first.variables, again.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    random = {v.path: v for v in first.variables if np.std(v) > 0}
    for variable in other.variables:
        if variable.path in random:
            assert not np.array_equal(variable, random[variable.path])
    assert len({float(np.std(v)) for v in random.values()}) == len(random)


def test_a_model_can_be_built_on_a_given_tensor():
    pixels = keras.Input((*IMAGE_SIZE, 3), name="raw")
    model = vit(SHAPE, input_tensor=keras.layers.Rescaling(2.0)(pixels), classes=2)
    assert model.input is pixels
    assert model(images()).shape == (3, 2)


def test_a_head_of_ones_own_is_a_function_from_the_shape_to_a_layer():
    model = small_vit(lambda shape: keras.layers.GlobalMaxPooling1D(name="max_head"))
    tokens = outputs_at(model, ["encoder_norm", "max_head"])(images())
    expected = np.max(tokens["encoder_norm"], axis=1)
    np.testing.assert_array_equal(tokens["max_head"], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": "B16"}, r"No shape is called 'B16'. Did you mean 'B/16'"),
        ({"head": "mpa"}, r"`head` must be one of .* received 'mpa'.* 'map'"),
        ({"position": "learnt"}, r"`position` must be .* mean 'learned'"),
        ({"dtype": "bfloat16"}, r"`dtype` must be .* mean 'mixed_bfloat16'"),
        ({"rematerialize": "every_0"}, r"`rematerialize` must be .*'every_0'"),
        (
            {"dropout": 1.0},
            r"`dropout` must be a number of at least 0 and below 1; received 1.0",
        ),
        ({"stochastic_depth": -0.1}, r"`stochastic_depth` must be a number"),
        (
            {"classes": 0},
            r"`classes` must be an integer of at least 1, or None; received 0",
        ),
        ({"representation_width": -1}, r"`representation_width` must be an integer of"),
        ({"register_tokens": -1}, r"`register_tokens` must be"),
        (
            {"norm_epsilon": 0.0},
            r"`norm_epsilon` must be a number above 0; received 0.0",
        ),
        ({"image_size": 3}, r"`image_size` must be at least the patch, 4 pixels"),
        ({"channels": 0}, r"`channels` must be an integer of at least 1"),
        ({"image_size": 3.5}, r"`image_size` must be an integer of at least 1, or \("),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        vit(**{"shape": SHAPE, "image_size": 8, **arguments})


def test_unknown_names_of_outputs_are_refused():
    with pytest.raises(ValueError, match=r"`names` must be .* mean 'pre_logits'"):
        outputs_at(vit(SHAPE, image_size=8), ["prelogits"])


def test_sincos_positions_need_a_width_of_fours():
    shape = SHAPE.__class__(patch=4, width=6, depth=1, mlp_width=8, heads=2)
    with pytest.raises(ValueError, match=r"`width` that is a multiple of 4"):
        vit(shape, image_size=8, position="sincos")


def test_pixels_that_fill_no_patch_raise_unless_they_may_be_ignored():
    with pytest.raises(
        ValueError, match=r"multiple of the patch, 4 .*\(13, 18\).*12 x 16"
    ):
        vit(SHAPE, image_size=(13, 18), classes=5)
    model = small_vit()
    larger = small_vit(image_size=(13, 18), crop_to_patches=True)
    pixels = images(size=(13, 18))
    np.testing.assert_array_equal(larger(pixels), model(pixels[:, :12, :16]))
