"""The command writes what --format names, and shows every output's difference."""
# SPDX-License-Identifier: Apache-2.0

import json

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tests.applications.cases import NAMED
from tests.applications.published_folders import MEAN, STD, write_transformers_folder
from tests.export import runs
from vit_scaling.applications.weights import load_for_serving, save_weights
from vit_scaling.commands import export, predict
from vit_scaling.export import onnx_litert, saved_model, serving_kit

# Keras turns its variables into arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

REPORT = {
    "output_dir": "OUT",
    "step": 7,
    "parameters": 12345,
    "classes": 4,
    "bytes": 3 * 2**20,
    "max_difference": {"logits": 0.0, "features": 2e-7},
}
WRITERS = (
    (saved_model, "export_run"), (onnx_litert, "export_run"),
    (serving_kit, "write_version"),
)  # fmt: skip


@pytest.fixture
def called(monkeypatch):
    """Which library function was called, with what."""
    calls = []
    for module, name in WRITERS:

        def write(*arguments, module=module, **options):
            calls.append((module, arguments, options))
            return dict(REPORT)

        monkeypatch.setattr(module, name, write)
    return calls


def test_saved_model_is_the_default(called, capsys):
    assert export.main(["--model_dir=RUN", "--output_dir=OUT", "--averages"]) == 0
    [(module, arguments, options)] = called
    assert module is saved_model and not arguments
    assert options == {
        "model_dir": "RUN", "output_dir": "OUT", "averages": True,
        "step": None, "top_k": 5, "preprocess": None, "resize": None,
        "jit_compile": False,
    }  # fmt: skip
    text = capsys.readouterr().out
    assert "Wrote OUT: step 7, 12,345 parameters, 4 classes, 3.0 MiB." in text
    assert "features" in text and "2e-07" in text


@pytest.mark.parametrize("kind", ["onnx", "litert"])
def test_other_formats_have_a_writer_of_their_own(called, kind):
    flags = ["--model_dir=RUN", "--output_dir=OUT", f"--format={kind}", "--step=3"]
    assert export.main(flags) == 0
    [(module, arguments, options)] = called
    assert module is onnx_litert and not arguments
    assert (options["model_dir"], options["output_dir"]) == ("RUN", "OUT")
    assert options["kind"] == kind and options["step"] == 3
    assert "top_k" not in options  # Such files list no classes.


def test_kit_gets_its_name_and_version(called, capsys):
    flags = ["--model_dir=RUN", "--output_dir=KIT", "--serving_kit=vit", "--version=4"]
    assert export.main([*flags, "--json"]) == 0
    [(module, _, options)] = called
    assert module is serving_kit
    assert (options["name"], options["version"]) == ("vit", 4)
    assert json.loads(capsys.readouterr().out)["step"] == 7


def test_difference_to_the_runs_precision_is_shown_where_there_is_one():
    report = {**REPORT, "max_difference_to_run_precision": {"logits": 0.01}}
    assert "differ from the run's own precision by 0.01" in export._show(report)
    assert "precision" not in export._show(REPORT)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier in half precision with a softmax behind it, as a .keras file."""
    folder = tmp_path_factory.mktemp("model")
    model = runs.small_model("mixed_bfloat16")
    softmax = keras.layers.Activation("softmax", name="predictions", dtype="float32")
    keras.Model(model.input, softmax(model.output)).save(folder / "m.keras")
    (folder / "names.txt").write_text("ant\nbee\ncat\ndog\n")
    return folder


def test_model_in_a_keras_file_is_served(classifier, tmp_path, capsys):
    flags = [f"--model={classifier}/m.keras", f"--output_dir={tmp_path}/out"]
    names = f"--class_names={classifier}/names.txt"
    assert export.main([*flags, names, "--loss=sigmoid_cross_entropy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == 4
    record = saved_model.read_record(tmp_path / "out")
    assert record.class_names == ("ant", "bee", "cat", "dog")
    assert record.loss == "sigmoid_cross_entropy"
    assert record.value_range == (-1.0, 1.0)
    assert (record.preprocess, record.resize) == ("central_crop", 55)


def test_weights_of_others_become_a_kit_that_answers(tmp_path, capsys):
    case = NAMED["hf_vit"]
    flags = [f"--model={case.path}", f"--output_dir={tmp_path}/kit"]
    assert export.main([*flags, "--serving_kit=vit", "--top_k=2"]) == 0
    capsys.readouterr()
    image = tmp_path / "a.png"
    image.write_bytes(runs.image_file(9, 7))
    asked = [f"--saved_model={tmp_path}/kit/vit", "--images", str(image), "--json"]
    assert predict.main(asked) == 0
    [found] = json.loads(capsys.readouterr().out)["predictions"]
    assert set(found["classes"]) < {"0", "1", "2"} and len(found["classes"]) == 2


@pytest.fixture
def published(tmp_path):
    """A published ViT with its processor: ImageNet's mean, and class names."""
    return write_transformers_folder(tmp_path / "published")


def test_exported_bytes_get_the_preprocessing_of_the_weights(
    published, tmp_path, capsys
):
    out = tmp_path / "out"
    assert export.main([f"--model={published}", f"--output_dir={out}"]) == 0
    pixels = np.random.default_rng(2).integers(0, 256, (40, 30, 3), np.uint8)
    encoded = tf.io.encode_png(pixels)
    small = PIL.Image.fromarray(pixels).resize((4, 4), PIL.Image.Resampling.BICUBIC)
    images = np.asarray(small) / 255 - MEAN
    images = (images / STD).astype(np.float32)[None]
    signatures = tf.saved_model.load(str(out)).signatures
    served = signatures["serving_bytes"](image_bytes=tf.stack([encoded]))
    model, *_ = load_for_serving(str(published))
    # One grey level of one pixel would change the logits by up to 2e-3.
    np.testing.assert_allclose(served["logits"], model(images), atol=5e-3)
    assert set(served["top_classes"].numpy()[0]) == {b"ant", b"bee", b"cat"}


def test_class_names_that_contradict_the_models_are_rejected(
    published, tmp_path, capsys
):
    (tmp_path / "names.txt").write_text("ant\nbee\ncow\n")
    flags = [f"--model={published}", f"--output_dir={tmp_path}/out"]
    assert export.main([*flags, f"--class_names={tmp_path}/names.txt"]) == 1
    error = capsys.readouterr().err
    assert "'cow' for class 2, where the model's 3 have 'cat'" in error


@pytest.mark.parametrize("name", ["hf_dinov2_registers", "hf_siglip_vision"])
def test_weights_without_a_classifier_are_exported_for_their_features(
    name, tmp_path, capsys
):
    out = tmp_path / "out"
    flags = [f"--model={NAMED[name].path}", f"--output_dir={out}", "--json"]
    assert export.main(flags) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["classes"] == 0 and set(report["max_difference"]) >= {"features"}
    images, expected = NAMED[name].expected()  # Computed by the model's authors' code.
    signatures = tf.saved_model.load(str(out)).signatures
    floats = signatures["serving_floats"](images=tf.constant(images))
    np.testing.assert_allclose(floats["features"], expected, atol=1e-5)
    pixels = np.random.default_rng(2).integers(0, 256, (9, 9, 3), np.uint8)
    encoded = tf.stack([tf.io.encode_png(pixels)] * 2)
    for signature in ("serving_default", "serving_features"):
        served = signatures[signature](image_bytes=encoded)
        assert {key: tuple(value.shape) for key, value in served.items()} == {
            "features": (2, 8)
        }
    image = tmp_path / "a.png"
    image.write_bytes(tf.io.encode_png(pixels).numpy())
    assert predict.main([f"--saved_model={out}", "--images", str(image)]) != 0
    assert "has no classifier" in capsys.readouterr().err


def test_weights_without_a_head_are_rejected_with_what_to_do(tmp_path, capsys):
    path = str(tmp_path / "tokens.npz")
    weights = NAMED["hf_siglip_vision"].read(head="none")
    save_weights(weights, path)
    flags = [f"--model={path}", f"--output_dir={tmp_path}/o"]
    assert export.main(flags) == 1
    assert "no pooling head" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "either --model_dir, a training run, or --model"),
        (["--model=a", "--model_dir=b"], "either --model_dir"),
        (["--model=a", "--averages"], "--averages has no effect with --model"),
        (["--model=a", "--step=1"], "--step has no effect with --model"),
        (["--model_dir=a", "--loss=sigmoid_cross_entropy"], "--loss has no effect"),
        (["--model_dir=a", "--class_names=f"], "--class_names has no effect"),
        (["--model_dir=a", "--value_range", "0", "1"], "--value_range has no effect"),
    ],
)
def test_flags_that_do_not_go_together_are_named(flags, message, tmp_path, capsys):
    assert export.main([*flags, f"--output_dir={tmp_path}/out"]) == 1
    assert message in capsys.readouterr().err


def test_sequential_model_with_a_rescaling_needs_its_range(tmp_path, capsys):
    inner = runs.small_model()
    scale = keras.layers.Rescaling(1 / 127.5, -1)
    layers = [keras.Input((*runs.IMAGE_SIZE, 3)), scale, inner]
    model = keras.Sequential([*layers, keras.layers.Dense(2)])
    model.save(tmp_path / "s.keras")
    flags = [f"--model={tmp_path}/s.keras", f"--output_dir={tmp_path}/out"]
    assert export.main(flags) == 1
    assert "(Rescaling), so the range of its pixels" in capsys.readouterr().err
    assert export.main([*flags, "--value_range", "0", "255"]) == 0
    assert saved_model.read_record(tmp_path / "out").value_range == (0.0, 255.0)
    images = np.random.default_rng(0).uniform(0, 255, (2, *runs.IMAGE_SIZE, 3))
    served = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_floats"]
    logits = served(images=tf.constant(images, tf.float32))["logits"]
    np.testing.assert_allclose(logits, model(images), rtol=1e-5, atol=1e-5)
