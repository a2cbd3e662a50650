"""A new model takes a trained body and positions, and draws its own classifier."""
# SPDX-License-Identifier: Apache-2.0

import types

import keras
import numpy as np
import pytest

from tests.applications.cases import NAMED, TINY
from tests.applications.published_folders import MEAN, STD, write_transformers_folder
from tests.export import runs
from vit_scaling.applications.backbones import keras_backbone
from vit_scaling.applications.finetuning import load_for_finetuning
from vit_scaling.applications.weights import build_model, read_weights
from vit_scaling.modeling.positions import resample
from vit_scaling.modeling.shapes import ViTShape
from vit_scaling.modeling.vit import vit

# Keras turns its variables into arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

POSITIONS = "position_embedding/embedding"


def values_of(model):
    return {v.path: np.asarray(v) for v in model.variables}


def drawn(model, seed=2):
    random = np.random.default_rng(seed)
    for variable in model.variables:
        if "seed" not in variable.path:
            variable.assign(random.uniform(0.1, 1.0, variable.shape))
    return model


def test_foreign_weights_fill_a_model_of_another_resolution_and_classes():
    weights = NAMED["bv_map"].read()
    model = vit(TINY, "map", image_size=8, classes=7)
    before = values_of(model)
    start = load_for_finetuning(model, NAMED["bv_map"].path)
    after = values_of(model)
    assert start.initialised == ("head/kernel", "head/bias")
    assert start.resampled == (POSITIONS,) and not start.differences
    assert set(start.left) == {"head/kernel", "head/bias"}
    np.testing.assert_array_equal(
        after[POSITIONS], resample(weights.variables[POSITIONS], (4, 4))
    )
    for path in start.taken:
        np.testing.assert_array_equal(after[path], weights.variables[path])
    for path in start.initialised:
        np.testing.assert_array_equal(after[path], before[path])
    assert {*start.taken, *start.resampled, *start.initialised} == after.keys()


def test_keras_file_keeps_its_classifier_only_on_request(tmp_path):
    trained = drawn(vit(TINY, "map", image_size=4, classes=3))
    path = str(tmp_path / "m.keras")
    trained.save(path)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 3)).astype("f")
    model = vit(TINY, "map", image_size=4, classes=3)
    assert not load_for_finetuning(model, path).resampled
    assert not np.any(model(images))  # The classifier's kernel is still zero.
    start = load_for_finetuning(model, path, classifier=True)
    assert not start.initialised and not start.left
    np.testing.assert_array_equal(model(images), trained(images))


@pytest.mark.parametrize("averages", [False, True])
def test_run_folder_gives_its_newest_weights(averages, monkeypatch, tmp_path):
    from vit_scaling.training import run_files, run_weights

    made = vit(TINY, "gap", image_size=(4, 6), classes=3, dropout=0.1)
    (tmp_path / run_files.MODEL_FILE).write_text(made.to_json())
    asked = []

    def restored(model, model_dir, *, averages):
        asked.append((str(model_dir), averages))
        drawn(model)
        return 7

    monkeypatch.setattr(run_weights, "restore_model", restored)
    model = vit(TINY, "gap", image_size=(6, 6), classes=2, dropout=0.2)
    start = load_for_finetuning(model, str(tmp_path), averages=averages)
    assert asked == [(str(tmp_path), averages)]
    wanted = values_of(drawn(made))
    after = values_of(model)
    for path in start.taken:
        np.testing.assert_array_equal(after[path], wanted[path])
    np.testing.assert_array_equal(
        after[POSITIONS], resample(wanted[POSITIONS], (3, 3), old_grid=(2, 3))
    )


def test_another_head_is_initialised_over_the_same_body_if_allowed():
    model = vit(TINY, "map", image_size=4, classes=2)
    before = values_of(model)
    with pytest.raises(ValueError, match=r"no 'map_head/probe'.*='\(map_head\)/\.\*'"):
        load_for_finetuning(model, NAMED["augreg"].path)
    for path, value in values_of(model).items():
        np.testing.assert_array_equal(value, before[path])
    start = load_for_finetuning(
        model, NAMED["augreg"].path, allow_initialised="(map_head)/.*"
    )
    assert all(p.startswith(("map_head/", "head/")) for p in start.initialised)
    assert "class_token/token" in start.left
    np.testing.assert_array_equal(values_of(model)["map_head/probe"],
                                  before["map_head/probe"])  # fmt: skip


def test_assumptions_in_reading_the_source_are_reported():
    model = vit(TINY, "token", image_size=4, classes=2, approximate_gelu=False)
    start = load_for_finetuning(model, NAMED["timm_token"].path, heads=2)
    assert any("GELU by erf" in fact for fact in start.assumed)
    assert "facts assumed: " in str(start)
    assert start.as_dict()["assumed"] == start.assumed


def test_differences_that_no_shape_betrays_are_warned_of():
    case = NAMED["hf_vit"]
    model = vit(TINY, "token", image_size=4, classes=2)
    with pytest.warns(UserWarning, match=r"approximate_gelu=False in the source"):
        start = load_for_finetuning(model, case.path)
    assert len(start.differences) == 2  # GELU, and the norms' epsilon of 1e-12.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": ViTShape(2, 16, 2, 12, 2)}, r"\(2, 2, 3, 8\).*\(2, 2, 3, 16\)"),
        ({"shape": ViTShape(4, 8, 2, 12, 2)}, r"'patch_embedding/kernel' has shape"),
        ({"shape": ViTShape(2, 8, 3, 12, 2)}, "has no 'block_02"),
        ({"shape": ViTShape(2, 8, 1, 12, 2)}, "no place for 16 variables.*as many"),
        ({"layer_scale": 0.1}, "has no 'block_00/attention_scale/gamma'"),
    ],
    ids=str,
)
def test_body_that_does_not_fit_is_rejected_and_nothing_changes(options, message):
    arguments = {"shape": TINY, "head": "map", "image_size": 8, "classes": 2, **options}
    model = vit(**arguments)
    before = values_of(model)
    with pytest.raises(ValueError, match=message):
        load_for_finetuning(model, NAMED["bv_map"].path)
    for path, value in values_of(model).items():
        np.testing.assert_array_equal(value, before[path])


def test_learned_positions_are_not_dropped_for_sines_and_cosines():
    options = {"position": "sincos", "image_size": 8, "classes": 2}
    shape = ViTShape(2, 8, 2, 12, 2)
    model = vit(shape, "map", **options)
    with pytest.raises(ValueError, match=r"no place for 1 .*position_embedding/"):
        load_for_finetuning(model, NAMED["bv_map"].path)


def test_backbone_takes_a_backbone(tmp_path):
    options = {"image_size": 32, "classes": 2}
    trained = drawn(keras_backbone("MobileNet", **options))
    path = str(tmp_path / "m.keras")
    trained.save(path)
    model = keras_backbone("MobileNet", image_size=64, classes=9)
    start = load_for_finetuning(model, path)
    assert start.initialised == ("head/kernel", "head/bias")
    wanted, after = values_of(trained), values_of(model)
    for name in start.taken:
        np.testing.assert_array_equal(after[name], wanted[name])


def test_layers_in_front_of_the_source_must_be_in_the_model(tmp_path):
    images = keras.Input((4, 4, 3))
    scaling = {"scale": 1 / 127.5, "offset": -1, "name": "scale"}
    front = keras.layers.Rescaling(**scaling)(images)
    path = str(tmp_path / "scaled.keras")
    drawn(vit(TINY, input_tensor=front, classes=3)).save(path)
    with pytest.raises(ValueError, match=r"scaled\.keras' has 'scale' \(Rescaling\)"):
        load_for_finetuning(vit(TINY, image_size=4, classes=2), path)
    same = keras.layers.Rescaling(**{**scaling, "name": "other"})(images)
    load_for_finetuning(vit(TINY, input_tensor=same, classes=2), path)
    other = keras.layers.Rescaling(**{**scaling, "offset": 0})(images)
    with pytest.raises(ValueError, match="would get other inputs"):
        load_for_finetuning(vit(TINY, input_tensor=other, classes=2), path)


def test_vit_inside_a_sequential_source_is_named(tmp_path):
    inner = vit(TINY, image_size=4, classes=None, name="inner")
    path = str(tmp_path / "s.keras")
    keras.Sequential([keras.Input((4, 4, 3)), inner, keras.layers.Dense(2)]).save(path)
    with pytest.raises(ValueError, match=r"s\.keras' has 'inner' \(Functional\)"):
        load_for_finetuning(vit(TINY, image_size=4, classes=2), path)


def new_data(**fields):
    return types.SimpleNamespace(**{"value_range": (-1.0, 1.0), **fields})


def test_published_weights_take_the_pixels_of_the_new_data(tmp_path):
    folder = str(write_transformers_folder(tmp_path / "published"))
    trained = build_model(read_weights(folder))
    model = build_model(read_weights(folder))  # Of the same options.
    data = new_data(class_names=("cat", "ant", "bee"))
    start = load_for_finetuning(model, folder, classifier=True, target=data)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)) / 255
    normalized = ((pixels - MEAN) / STD).astype(np.float32)
    expected = np.asarray(trained(normalized))[:, [2, 0, 1]]
    found = model((2 * pixels - 1).astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(start.adapted) == 2 and "mapped by name" in str(start)


def test_a_new_class_is_an_error_only_with_the_classifier(tmp_path):
    folder = str(write_transformers_folder(tmp_path / "published"))
    model, data = build_model(read_weights(folder)), new_data(class_names=("cow",))
    before = values_of(model)
    with pytest.raises(ValueError, match="'cow'"):
        load_for_finetuning(model, folder, classifier=True, target=data)
    for path, value in before.items():
        np.testing.assert_array_equal(values_of(model)[path], value)
    assert load_for_finetuning(model, folder, target=data).taken


def test_a_runs_pixels_are_adapted(tmp_path):
    trained = runs.small_model()
    runs.write_run(tmp_path, trained, value_range=[0, 1])
    model = runs.small_model()
    data = new_data(class_names=())
    start = load_for_finetuning(model, str(tmp_path), classifier=True, target=data)
    images = np.random.default_rng(0).uniform(0, 1, (2, *runs.IMAGE_SIZE, 3))
    images = images.astype(np.float32)
    np.testing.assert_allclose(model(2 * images - 1), trained(images), atol=1e-5)
    assert start.as_dict()["adapted"] == start.adapted
