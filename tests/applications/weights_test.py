"""Weights go out and come back bit for bit, and fit models of another resolution."""
# SPDX-License-Identifier: Apache-2.0

import keras
import numpy as np
import pytest

from tests.applications.cases import NAMED, TINY, stack_blocks
from vit_scaling import array_files as files
from vit_scaling.applications.backbones import keras_backbone
from vit_scaling.applications.formats.keras_models import weights_of_model
from vit_scaling.applications.weights import (
    assign_weights,
    build_model,
    check_takes_default_range,
    export_weights,
    load_trained,
    read_weights,
    save_weights,
)
from vit_scaling.modeling.positions import resample
from vit_scaling.modeling.vit import vit

# Keras turns its variables into arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def random_vit(**options):
    """A tiny model whose every variable is drawn, -0.0 among the values."""
    arguments = {"head": "map", "image_size": 4, "classes": 3, **options}
    model = vit(TINY, **arguments)
    random = np.random.default_rng(1)
    for variable in model.variables:
        value = random.normal(size=variable.shape).astype(np.float32)
        value.flat[0] = -0.0
        variable.assign(value)
    return model


def test_layers_in_front_of_the_new_model_keep_their_own_variables():
    weights = weights_of_model(random_vit())
    images = keras.Input((4, 4, 3))
    flipped = keras.layers.RandomFlip()(images)
    x = keras.layers.Normalization(mean=2.0, variance=4.0)(flipped)
    model = vit(TINY, "map", input_tensor=x, classes=3)
    assign_weights(model, weights)
    batch = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 3)).astype("f")
    expected = random_vit()(batch)
    outputs = model(batch * 2 + 2, training=False)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-4)


def test_layers_around_a_vit_are_named_with_the_file(tmp_path):
    images = keras.Input((4, 4, 3))
    scaled = keras.layers.Rescaling(2.0, name="scale")(images)
    path = str(tmp_path / "scaled.keras")
    vit(TINY, "map", input_tensor=scaled, classes=3).save(path)
    with pytest.raises(ValueError, match=r"scaled\.keras': .*'scale' \(Rescaling\)"):
        read_weights(path)


def test_range_of_pixels_is_not_guessed_behind_layers_in_front():
    check_takes_default_range(random_vit())
    check_takes_default_range(keras_backbone("MobileNet", image_size=32, classes=2))
    images = keras.Input((4, 4, 3))
    scaled = keras.layers.Rescaling(2.0, name="scale")(images)
    model = vit(TINY, "map", input_tensor=scaled, classes=3)
    with pytest.raises(ValueError, match=r"starts with 'scale' .*--value_range"):
        check_takes_default_range(model)


def assert_same_bits(variables, model):
    built = {v.path: np.asarray(v) for v in model.variables}
    assert variables.keys() == built.keys()
    for path, value in built.items():
        assert variables[path].tobytes() == value.tobytes(), path


@pytest.mark.parametrize(
    "options",
    [
        {"head": "map"},
        {"head": "token", "representation_width": 5},
        {"head": "gap", "position": "sincos", "image_size": 224},
        {"head": "map", "classes": None},
    ],
    ids=str,
)
def test_big_vision_round_trip_is_bit_equal(options, tmp_path):
    model = random_vit(**options)
    path = str(tmp_path / "out.npz")
    report = export_weights(model, path)
    assert report["layout"] == "big_vision"
    assert_same_bits(read_weights(path).variables, model)


@pytest.mark.parametrize(
    "options",
    [
        {"head": "map"},
        {"head": "token", "approximate_gelu": False},
        {"head": "gap", "layer_scale": 0.1, "qk_norm": True},
        {"head": "token", "register_tokens": 3},
        {"head": "gap", "norm_after_pooling": True},
        {"head": "gap", "register_tokens": 3, "image_size": (4, 6)},
        {"head": "map", "classes": None, "norm_epsilon": 1e-5},
    ],
    ids=str,
)
def test_timm_round_trip_is_bit_equal_and_needs_no_telling(options, tmp_path):
    model = random_vit(**options)
    path = str(tmp_path / "out.safetensors")
    assert export_weights(model, path)["layout"] == "timm"
    back = read_weights(path)
    assert_same_bits(back.variables, model)
    for name, value in options.items():
        if name not in ("layer_scale", "image_size"):
            assert back.arguments[name] == value
    images = np.random.default_rng(0).uniform(-1, 1, (2, *model.input.shape[1:]))
    rebuilt = build_model(back)
    np.testing.assert_array_equal(
        np.asarray(rebuilt(images.astype("f"))), np.asarray(model(images.astype("f")))
    )


@pytest.mark.parametrize(
    "name", ["bv_token", "bv_gap", "bv_map_inlined", "bv_map_scan"]
)
def test_peers_arrays_come_out_as_they_went_in(name, tmp_path):
    path = str(tmp_path / "out.npz")
    export_weights(NAMED[name].read(), path)
    out = files.read_npz(path)
    theirs = files.read_npz(NAMED[name].path)
    if name == "bv_map_scan":
        out = stack_blocks(out)
    fixed = {"probe": "MAPHead_0/probe"}
    for key, value in theirs.items():
        key = key.removeprefix("params/")
        inlined = name == "bv_map_inlined" and "/" in key and key[0] in "LM"
        key = f"MAPHead_0/{key}" if inlined else key
        assert out.pop(fixed.get(key, key)).tobytes() == value.tobytes(), key
    assert not out


@pytest.mark.parametrize("name", ["timm_map", "timm_gap", "timm_options"])
def test_timm_arrays_come_out_as_they_went_in(name, tmp_path):
    path = str(tmp_path / "out.safetensors")
    export_weights(NAMED[name].read(), path)
    out, _ = files.read_safetensors(path)
    theirs, _ = files.read_safetensors(NAMED[name].path)
    assert out.keys() == theirs.keys()
    for key, value in theirs.items():
        if key not in ("cls_token", "reg_token", "pos_embed"):  # Folded together.
            assert out[key].tobytes() == value.tobytes(), key
    prefix = [theirs[k] for k in ("cls_token", "reg_token") if k in theirs]
    own_prefix = [out[k] for k in ("cls_token", "reg_token") if k in out]
    length = sum(p.shape[1] for p in prefix)
    pad = [(0, 0), (0, out["pos_embed"].shape[1] - length), (0, 0)]
    for tokens, arrays in ((prefix, theirs), (own_prefix, out)):
        tokens = np.concatenate(tokens or [np.zeros((1, 0, 8))], axis=1)
        arrays["sum"] = np.pad(tokens, pad) + arrays["pos_embed"]
    np.testing.assert_array_equal(out["sum"], theirs["sum"])


@pytest.mark.parametrize("kind", ["npz", "keras"])
def test_own_files_hold_the_model_whole(kind, tmp_path):
    weights = NAMED["timm_options"].read()
    path = str(tmp_path / f"own.{kind}")
    save_weights(weights, path)
    again = read_weights(path)
    ignored = {"layer_scale"}  # Only whether there is one matters after training.
    for name in weights.arguments.keys() - ignored:
        assert again.arguments[name] == weights.arguments[name], name
    assert_same_bits(again.variables, build_model(weights))


def test_positions_are_resampled_to_another_resolution():
    weights = NAMED["bv_map"].read()
    model = build_model(weights, image_size=(6, 8))
    wanted = resample(weights.variables["position_embedding/embedding"], (3, 4))
    held = np.asarray(model.get_layer("position_embedding").embedding)
    np.testing.assert_array_equal(held, wanted)
    assert model(np.zeros((1, 6, 8, 3), "f")).shape == (1, 3)


def test_weights_of_another_model_are_rejected_before_anything_changes():
    weights = NAMED["bv_map"].read()
    token = vit(TINY, "token", image_size=4, classes=3)
    before = [np.asarray(v) for v in token.variables]
    with pytest.raises(ValueError, match="have no 'class_token/token'"):
        assign_weights(token, weights)
    wider = vit(TINY, "map", image_size=4, classes=4)
    with pytest.raises(ValueError, match="'head/kernel'"):
        assign_weights(wider, weights)
    for old, variable in zip(before, token.variables, strict=True):
        np.testing.assert_array_equal(old, np.asarray(variable))


def test_what_another_project_has_no_place_for_is_named(tmp_path):
    with pytest.raises(ValueError, match="big_vision's ViT has no place for"):
        export_weights(random_vit(layer_scale=0.1), str(tmp_path / "a.npz"))
    with pytest.raises(ValueError, match="no layer before the classifier"):
        export_weights(
            random_vit(representation_width=5), str(tmp_path / "a.safetensors")
        )
    with pytest.raises(ValueError, match="must end in"):
        export_weights(random_vit(), str(tmp_path / "a.pt"))
    with pytest.raises(ValueError, match="must end in"):
        save_weights(weights_of_model(random_vit()), str(tmp_path / "a.h5"))
    assert not list(tmp_path.iterdir())


def test_truncated_keras_file_is_rejected(tmp_path):
    path = tmp_path / "m.keras"
    random_vit().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"can't be read as \.keras"):
        load_trained(str(path))


def test_own_weights_are_checked_against_shape_and_requested_head(tmp_path):
    path = str(tmp_path / "own.npz")
    save_weights(weights_of_model(random_vit()), path)
    with pytest.raises(ValueError, match="not have `shape` 'B/16'"):
        read_weights(path, shape="B/16")
    with pytest.raises(ValueError, match="trained on its MAP head"):
        read_weights(path, head="gap")
    gap = read_weights(path, head="gap", ignore="head/.*")
    assert (gap.arguments["head"], gap.arguments["classes"]) == ("gap", None)
    assert not any(name.startswith("map_head") for name in gap.variables)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"approximate_gelu": False}, "GELU by erf and epsilon 1e-06"),
        ({"norm_epsilon": 1e-12}, "GELU by tanh and epsilon 1e-12"),
    ],
)
def test_functions_that_big_vision_has_not_are_rejected(options, message, tmp_path):
    model = random_vit(**options)
    with pytest.raises(ValueError, match=f"{message}.*--gelu=tanh"):
        export_weights(model, str(tmp_path / "out.npz"))
    assert not list(tmp_path.iterdir())


def test_line_that_loads_into_timm_names_the_epsilon(tmp_path):
    model = random_vit(norm_epsilon=1e-5)
    report = export_weights(model, str(tmp_path / "out.safetensors"))
    argument = "norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-05))"
    assert argument in report["load_with"]
    compile(report["load_with"], "load_with", "exec")


def test_norm_of_the_average_has_no_place_in_big_vision(tmp_path):
    model = random_vit(head="gap", norm_after_pooling=True)
    with pytest.raises(ValueError, match=r"norms the tokens.*Write timm's layout"):
        export_weights(model, str(tmp_path / "out.npz"))
    assert not list(tmp_path.iterdir())


def test_keras_file_with_layers_of_others_is_rejected_in_words(tmp_path):
    class Unheard(keras.layers.Layer):
        def call(self, x):
            return x

    images = keras.Input((4,))
    path = str(tmp_path / "m.keras")
    keras.Model(images, Unheard()(images)).save(path)
    with pytest.raises(ValueError, match=r"'Unheard'.*must be registered with Keras"):
        load_trained(path)


@pytest.mark.parametrize("size", [(2, 8), (8, 2), (4, 6)], ids=str)
@pytest.mark.parametrize("file", ["m.keras", "m.npz", "export.npz", "m.safetensors"])
def test_every_file_of_ours_keeps_the_sides_of_the_images(file, size, tmp_path):
    """2 x 8 pixels are 4 patches of 2 pixels: a square number, and no square."""
    model = random_vit(head="gap", image_size=size)
    path = str(tmp_path / file)
    if file.startswith("m.") and not file.endswith("safetensors"):
        save_weights(weights_of_model(model), path)
    else:
        export_weights(model, path)
    weights = read_weights(path)
    assert weights.arguments["image_size"] == size
    images = np.random.default_rng(0).uniform(-1, 1, (2, *size, 3)).astype("f")
    outputs = build_model(weights)(images, training=False)
    np.testing.assert_allclose(outputs, model(images, training=False), atol=1e-6)
