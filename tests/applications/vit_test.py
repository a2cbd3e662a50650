"""The applications' arguments behave as Keras' own applications' do."""
# SPDX-License-Identifier: Apache-2.0

import inspect
import warnings

import keras
import numpy as np
import pytest

from tests.applications.cases import NAMED
from vit_scaling import applications
from vit_scaling.applications import vit as module
from vit_scaling.applications.weights import build_model, save_weights
from vit_scaling.modeling.shapes import SHAPES, ViTShape, shape_named
from vit_scaling.modeling.vit import outputs_at, vit

# Keras turns its variables into arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

ROWS = {  # Facts §1.1 (Table 2) and §1.2: name, patch, width, depth, MLP, heads.
    "ViTs28": (28, 256, 6, 1024, 8),
    "ViTs16": (16, 256, 6, 1024, 8),
    "ViTTi16": (16, 192, 12, 768, 3),
    "ViTS32": (32, 384, 12, 1536, 6),
    "ViTS16": (16, 384, 12, 1536, 6),
    "ViTB32": (32, 768, 12, 3072, 12),
    "ViTB28": (28, 768, 12, 3072, 12),
    "ViTB16": (16, 768, 12, 3072, 12),
    "ViTL16": (16, 1024, 24, 4096, 16),
    "ViTg14": (14, 1408, 40, 6144, 16),
    "ViTG14": (14, 1664, 48, 8192, 16),
    "ViTSo400m14": (14, 1152, 27, 4304, 16),
    # The authors' code, facts §1.2, at the patches of published weights.
    "ViTS14": (14, 384, 12, 1536, 6),
    "ViTM16": (16, 512, 12, 2048, 8),
    "ViTB14": (14, 768, 12, 3072, 12),
    "ViTB8": (8, 768, 12, 3072, 12),
    "ViTL14": (14, 1024, 24, 4096, 16),
    "ViTSo400m16": (16, 1152, 27, 4304, 16),
    "ViTH14": (14, 1280, 32, 5120, 16),
    "ViTgopt16": (16, 1536, 40, 6144, 16),
}
# A constructor like the others, of the authors' smallest shape (32 wide, 1 block).
mu = module._application("ViTmu16", "mu/16")
SMALL = {"input_shape": (32, 48, 3), "classes": 5}


def images(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape or (2, 32, 48, 3)).astype("f")


@pytest.mark.parametrize("name", ROWS)
def test_constructor_builds_its_row_of_table_2(name, monkeypatch):
    made = []

    def recorded(shape, **arguments):
        made.append(shape)
        return vit(ViTShape(16, 8, 1, 8, 1), **arguments)

    monkeypatch.setattr(module, "vit", recorded)
    model = getattr(applications, name)()
    assert shape_named(made[0]) == ViTShape(*ROWS[name])
    assert (model.name, model.output_shape) == (name, (None, 1000))
    assert model.input_shape == (None, 224, 224, 3)


def test_every_row_of_table_2_has_its_constructor():
    table_2 = list(SHAPES)[:11]
    assert {f"ViT{name.replace('/', '')}" for name in table_2} <= set(ROWS)
    constructors = {name for name in applications.__all__ if name.startswith("ViT")}
    assert set(ROWS) == constructors


def test_arguments_have_keras_names_in_keras_order():
    ours = list(inspect.signature(applications.ViTB16).parameters.values())
    theirs = inspect.signature(keras.applications.ResNet50).parameters
    assert [p.name for p in ours] == [*theirs, "head"]
    defaults = {p.name: p.default for p in ours}
    for name in ("include_top", "input_tensor", "input_shape", "pooling", "classes",
                 "classifier_activation"):  # fmt: skip
        assert defaults[name] == theirs[name].default
    assert applications.ViTB16.__name__ == "ViTB16"
    assert "ViT-B/16" in applications.ViTB16.__doc__


def test_a_real_one_has_the_papers_parameters():
    model = applications.ViTs28(include_top=False)
    assert model.count_params() == 5_357_824  # Facts §1.1: body at 224 pixels.
    assert model.output_shape == (None, 8, 8, 256)


def test_top_gives_probabilities_and_can_give_logits():
    model = mu(**SMALL)
    assert model.output_shape == (None, 5)
    assert model.layers[-1].activation is keras.activations.softmax
    np.testing.assert_allclose(np.sum(model(images()), axis=-1), 1.0, atol=1e-6)
    logits = mu(**SMALL, classifier_activation=None)
    assert logits.layers[-1].name == "head"


@pytest.mark.parametrize(
    ("pooling", "shape"),
    [(None, (None, 2, 3, 32)), ("avg", (None, 32)), ("max", (None, 32)),
     ("head", (None, 32))],
)  # fmt: skip
@pytest.mark.parametrize("head", ["map", "token"])
def test_without_top_the_output_is_the_pooled_or_whole_grid(pooling, shape, head):
    model = mu(False, None, None, (32, 48, 3), pooling, head=head)
    assert model.output_shape == shape
    assert model(images()).shape == (2, *shape[1:])


def test_grid_holds_the_patches_tokens_in_their_places():
    model = mu(False, None, None, (32, 48, 3), head="token")
    tokens = outputs_at(model, ["encoder_norm"])(images())["encoder_norm"]
    grid = np.asarray(model(images()))
    assert tokens.shape == (2, 7, 32)  # The class token stands first.
    np.testing.assert_array_equal(grid.reshape(2, 6, 32), tokens[:, 1:])
    average = mu(False, None, None, (32, 48, 3), "avg", head="token")
    average.set_weights(model.get_weights())
    np.testing.assert_allclose(average(images()), grid.mean((1, 2)), atol=1e-6)


def test_head_features_are_what_the_classifier_reads():
    top, features = mu(**SMALL), mu(False, None, None, (32, 48, 3), "head")
    for variable in features.variables:
        variable.assign(next(v for v in top.variables if v.path == variable.path))
    read = outputs_at(top, ["pre_logits"])(images())["pre_logits"]
    np.testing.assert_allclose(features(images()), read, atol=1e-6)


def test_other_numbers_of_channels_are_possible_and_warned_of():
    assert mu(input_shape=(32, 32, 1), classes=2).input_shape == (None, 32, 32, 1)
    with pytest.warns(UserWarning, match="1 or 3 input channels"):
        model = mu(input_shape=(32, 32, 4), classes=2)
    assert model(images(1, 32, 32, 4)).shape == (1, 2)


def test_model_builds_on_an_input_tensor_and_what_stands_before_it():
    inputs = keras.Input((32, 48, 3), name="levels")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    model = mu(input_tensor=scaled, classes=5)
    assert model.input is inputs
    plain = mu(**SMALL)
    plain.set_weights(model.get_weights())
    levels = (images() + 1) * 127.5
    np.testing.assert_allclose(model(levels), plain(images()), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"weights": "imagnet"},
            "`weights` argument should be either `None`.*imagnet",
        ),
        (
            {"weights": "imagenet"},
            "No weights with ImageNet's classes are published for 'mu/16'",
        ),
        ({"weights": "no/such.weights.h5"}, "`weights` argument should be either"),
        ({"input_shape": (32, 32)}, "must be a tuple of three integers"),
        ({"input_shape": (None, None, 3)}, "static `input_shape`"),
        ({"input_shape": (15, 32, 3)}, "at least 16x16"),
        ({"pooling": "mean", "include_top": False}, "`pooling` argument should be"),
        ({"classes": 0}, "`classes` must be an integer of at least 1"),
        ({"head": "cls"}, "`head` argument should be one of"),
        ({"head": "nope", "include_top": False}, "`head` argument should be one of"),
        ({"input_shape": (8, 8, 3)}, "at least 16x16"),
        ({"input_tensor": "32", "input_shape": (16, 16, 3)}, "that of `input_tensor`"),
    ],
    ids=str,
)
def test_bad_argument_is_rejected(arguments, message):
    if "input_tensor" in arguments:
        arguments = {**arguments, "input_tensor": keras.Input((32, 32, 3))}
    with pytest.raises(ValueError, match=message):
        mu(**arguments)


def test_channels_first_is_rejected(monkeypatch):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    with pytest.raises(ValueError, match="channels_last"):
        mu()


@pytest.fixture
def weights_file(tmp_path):
    """Weights of mu/16 with a map head and 5 classes, as this package's own file."""
    model = mu(**SMALL, classifier_activation=None)
    random = np.random.default_rng(3)
    for variable in model.variables:
        variable.assign(random.normal(size=variable.shape) * 0.1)
    path = str(tmp_path / "mu.keras")
    model.save(path)
    return path, model


def test_weights_come_from_any_file_at_their_own_size(weights_file):
    path, model = weights_file
    loaded = mu(weights=path, classes=5, classifier_activation=None)
    assert loaded.input_shape == (None, 32, 48, 3)
    np.testing.assert_array_equal(loaded(images()), model(images()))
    features = mu(False, path, pooling="head")
    read = outputs_at(model, ["pre_logits"])(images())["pre_logits"]
    np.testing.assert_array_equal(features(images()), read)


def test_weights_are_resampled_to_the_input_shape(weights_file):
    loaded = mu(weights=weights_file[0], classes=5, input_shape=(64, 64, 3))
    assert loaded(images(1, 64, 64, 3)).shape == (1, 5)


def test_keras_file_of_weights_loads_as_in_keras(weights_file, tmp_path):
    path = str(tmp_path / "mu.weights.h5")
    weights_file[1].save_weights(path)
    loaded = mu(weights=path, **SMALL, classifier_activation=None)
    np.testing.assert_array_equal(loaded(images()), weights_file[1](images()))


def test_keras_file_of_weights_is_fetched_from_an_address(
    weights_file, tmp_path, monkeypatch
):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "cache"))
    path = str(tmp_path / "mu.weights.h5")
    weights_file[1].save_weights(path)
    loaded = mu(weights=f"file://{path}", **SMALL, classifier_activation=None)
    np.testing.assert_array_equal(loaded(images()), weights_file[1](images()))


def test_missing_keras_file_is_an_error_before_the_model_is_built(monkeypatch):
    monkeypatch.setattr(module, "_build", lambda *_: pytest.fail("built"))
    with pytest.raises(ValueError, match="`weights` argument should be either"):
        mu(weights="no/such.weights.h5")


def test_weights_that_disagree_are_rejected(weights_file):
    path, _ = weights_file
    with pytest.raises(ValueError, match="must be the 5 of the weights' classifier"):
        mu(weights=path)
    with pytest.raises(ValueError, match=r"not have `shape` 's/16'.*fit: mu/16"):
        applications.ViTs16(weights=path, classes=5)
    with pytest.raises(ValueError, match="3 channels when weights are loaded"):
        mu(weights=path, classes=5, input_shape=(32, 32, 1))
    with pytest.raises(ValueError, match="Only `None`, `softmax` and `sigmoid`"):
        mu(weights=path, classes=5, classifier_activation="relu")
    assert mu(weights=path, classes=5, classifier_activation="sigmoid")


def test_weights_without_a_classifier_have_no_top(tmp_path, monkeypatch):
    tower = NAMED["bv_map_tower"].read()
    path = str(tmp_path / "tower.npz")
    save_weights(tower, path)
    monkeypatch.setattr(module, "shape_named", lambda name: tower.shape)
    tiny = module._application("ViTtiny", tower.shape)
    with pytest.raises(ValueError, match="hold no classifier"):
        tiny(weights=path)
    given, wanted = NAMED["bv_map_tower"].expected()
    model = tiny(include_top=False, weights=path, pooling="head")
    np.testing.assert_allclose(model(given), wanted, atol=1e-5)
    np.testing.assert_array_equal(model(given), build_model(tower)(given))


def test_weights_saved_without_a_head_do_not_give_tokens_for_features(tmp_path):
    path = str(tmp_path / "body.keras")
    body = mu(False, None, None, (32, 48, 3), "avg")
    body.save(path)
    with pytest.raises(ValueError, match=r"hold no head.*Use pooling='avg'"):
        mu(False, path, pooling="head")
    average = mu(False, path, pooling="head", head="gap")
    np.testing.assert_allclose(average(images()), body(images()), atol=1e-6)


def test_features_by_another_head_leave_the_weights_classifier_out(weights_file):
    path, model = weights_file
    features = mu(False, path, pooling="head", head="gap")
    tokens = outputs_at(model, ["encoder_norm"])(images())["encoder_norm"]
    np.testing.assert_allclose(features(images()), np.mean(tokens, axis=1), atol=1e-6)
    with pytest.raises(ValueError, match="classifier was trained on its MAP head"):
        mu(weights=path, classes=5, head="gap")


@pytest.mark.filterwarnings("ignore:.*assumed")
def test_weights_that_norm_the_average_give_features_but_no_tokens(monkeypatch):
    case = NAMED["timm_gap_fc_norm"]
    monkeypatch.setattr(module, "shape_named", lambda name: case.read().shape)
    monkeypatch.setattr(module, "_read", lambda *_: case.read())
    tiny = module._application("ViTtiny", case.read().shape)
    given, wanted = case.expected()
    with pytest.warns(UserWarning, match=r"model\.safetensors': assumed .*GELU by erf"):
        top = tiny(weights=case.path, classes=3, classifier_activation=None)
    np.testing.assert_allclose(top(given), wanted, atol=1e-5)
    features = tiny(include_top=False, weights=case.path, pooling="head")
    read = outputs_at(top, ["pre_logits"])(given)["pre_logits"]
    np.testing.assert_allclose(features(given), read, atol=1e-6)
    with pytest.raises(ValueError, match="last norm is of the averaged tokens"):
        tiny(include_top=False, weights=case.path, pooling="avg")


def test_model_trains_by_fit_and_goes_through_a_file_and_a_clone(tmp_path):
    model = mu(**SMALL)
    # Without XLA, whose compilation takes longer than all epochs.
    adam = keras.optimizers.Adam(0.01)
    model.compile(adam, "sparse_categorical_crossentropy", jit_compile=False)
    labels = np.array([1, 4])
    history = model.fit(images(), labels, epochs=5, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    wanted = np.asarray(model(images()))
    path = str(tmp_path / "m.keras")
    model.save(path)
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(loaded(images()), wanted)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert clone.get_config() == model.get_config()
    np.testing.assert_array_equal(clone(images()), wanted)


def test_mixed_precision_is_the_global_policy():
    exact = mu(**SMALL)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = mu(**SMALL)
        grid = mu(False, None, None, (32, 48, 3))
    finally:
        keras.config.set_dtype_policy(before)
    assert model.get_layer("block_00").compute_dtype == "bfloat16"
    assert grid.output.dtype == "bfloat16" and model.output.dtype == "float32"
    assert {v.dtype for v in model.variables} == {"float32"}
    np.testing.assert_allclose(model(images()), exact(images()), atol=0.02)


def test_construction_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mu(**SMALL)(images()).shape == (2, 5)
