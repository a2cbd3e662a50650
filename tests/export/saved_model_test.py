"""SavedModels answer what the model answers, for floats and for files' bytes."""
# SPDX-License-Identifier: Apache-2.0

import io
import json

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tests.export import runs
from vit_scaling.export import image_decoding, saved_model, serving_signatures
from vit_scaling.image_preprocessing import EVALUATION_PREPROCESSING, scale_pixels
from vit_scaling.run_record import RunRecord


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run, its export and the export's report."""
    folder = tmp_path_factory.mktemp("exported")
    model = runs.small_model()
    runs.write_run(folder / "run", model)
    report = saved_model.export_run(folder / "run", folder / "served", top_k=3)
    return model, folder / "served", report


@pytest.fixture(scope="module")
def served(exported):
    return tf.saved_model.load(str(exported[1]))


@pytest.fixture(scope="module")
def compiled(exported, tmp_path_factory):
    """The export of the same model that XLA compiles, and its report."""
    folder = tmp_path_factory.mktemp("compiled") / "served"
    record = saved_model.read_record(exported[1])
    report = saved_model.export_model(exported[0], folder, record, jit_compile=True)
    return folder, report


def random_batch(number):
    generator = np.random.default_rng(3)
    return generator.uniform(-1, 1, (number, *runs.IMAGE_SIZE, 3)).astype(np.float32)


def test_report_says_no_difference(exported):
    _, folder, report = exported
    assert report["max_difference"] == dict.fromkeys(
        ("logits", "probabilities", "features", "tokens"), 0.0
    )
    assert set(report["max_difference_eager"]) == set(report["max_difference"])
    assert max(report["max_difference_eager"].values()) < 5e-6  # float32 rounding
    assert report["step"] == runs.STEP
    assert report["classes"] == 4
    assert "max_difference_to_run_precision" not in report
    assert (folder / "saved_model.pb").is_file()


def test_compiled_export_answers_the_same_and_says_that_xla_is_needed(compiled, served):
    folder, report = compiled
    assert set(report["max_difference"].values()) == {0.0}
    assert saved_model.read_report(folder)["jit_compile"] is True
    signatures = tf.saved_model.load(str(folder)).signatures
    for batch in (1, 3):
        images = tf.constant(random_batch(batch))
        expected = served.signatures["serving_floats"](images=images)
        found = signatures["serving_floats"](images=images)
        for name in ("logits", "probabilities", "features", "tokens"):
            np.testing.assert_allclose(found[name], expected[name], atol=5e-6)
        np.testing.assert_array_equal(
            found["top_classes"][:, :3], expected["top_classes"]
        )
    library = signatures["serving_floats"].graph.as_graph_def().library
    functions = [f for f in library.function if f.attr["_XlaMustCompile"].b]
    assert functions  # Not only equal: compiled.


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_float_signature_answers_the_models_logits(exported, served, batch):
    model = exported[0]
    images = random_batch(batch)
    outputs = served.signatures["serving_floats"](images=tf.constant(images))
    # Fused in a graph, op by op in Python: float32 sums round differently.
    np.testing.assert_allclose(outputs["logits"], model(images), atol=5e-6)
    np.testing.assert_allclose(
        outputs["probabilities"],
        1 / (1 + np.exp(-np.asarray(model(images), np.float64))),
        rtol=1e-5,  # float32 sigmoid against float64
    )
    assert {value.dtype for value in outputs.values()} == {
        tf.float32,
        tf.int32,
        tf.string,
    }
    assert outputs["tokens"].shape == (batch, 6, 32)


def test_features_are_the_classifiers_input(exported, served):
    model = exported[0]
    outputs = served.signatures["serving_floats"](images=tf.constant(random_batch(2)))
    kernel, bias = (weight.numpy() for weight in model.get_layer("head").weights)
    logits = outputs["features"].numpy() @ kernel + bias
    np.testing.assert_allclose(logits, outputs["logits"], atol=1e-5)


def test_top_classes_are_the_largest_probabilities_with_their_names(served):
    outputs = served.signatures["serving_floats"](images=tf.constant(random_batch(3)))
    order = np.argsort(-outputs["probabilities"].numpy(), axis=1)[:, :3]
    np.testing.assert_array_equal(outputs["top_indices"], order)
    names = np.array(runs.CLASS_NAMES)[order]
    assert [
        [name.decode() for name in row] for row in outputs["top_classes"].numpy()
    ] == (names.tolist())
    np.testing.assert_array_equal(
        outputs["top_probabilities"],
        np.take_along_axis(outputs["probabilities"].numpy(), order, axis=1),
    )


def test_softmax_runs_answer_softmax(tmp_path):
    model = runs.small_model()
    runs.write_run(tmp_path / "run", model, loss="softmax_cross_entropy")
    saved_model.export_run(tmp_path / "run", tmp_path / "served")
    loaded = tf.saved_model.load(str(tmp_path / "served"))
    outputs = loaded.signatures["serving_floats"](images=tf.constant(random_batch(2)))
    np.testing.assert_allclose(
        outputs["probabilities"].numpy().sum(axis=1), 1.0, rtol=1e-6
    )


def as_evaluated(content):
    """Area resize of the smaller side and central crop, by Pillow and NumPy."""
    height, width = runs.IMAGE_SIZE
    image = PIL.Image.open(io.BytesIO(content)).convert("RGB")
    # The factor between sizes is whole in these tests, so an area resize is a box mean.
    side = round(max(height, width) * 8 / 7)
    factor = min(image.size) // side
    pixels = np.asarray(image, np.float64)
    shape = (image.height // factor, factor, image.width // factor, factor, 3)
    pixels = np.floor(pixels.reshape(shape).mean(axis=(1, 3)) + 1e-4)
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    crop = pixels[top : top + height, left : left + width]
    return (crop / 255 * 2 - 1).astype(np.float32)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_bytes_are_decoded_resized_and_cropped_as_in_evaluation(served, format):
    files = [
        runs.image_file(110, 220, seed=1, format=format),
        runs.image_file(220, 110, seed=2, format=format),
    ]
    by_bytes = served.signatures["serving_bytes"](image_bytes=tf.constant(files))
    images = np.stack([as_evaluated(content) for content in files])
    by_floats = served.signatures["serving_floats"](images=tf.constant(images))
    # JPEG decoders differ by a level or two per pixel (1/128 of the range each).
    tolerance = 1e-5 if format == "PNG" else 5e-2
    np.testing.assert_allclose(by_bytes["logits"], by_floats["logits"], atol=tolerance)


def encode(kind, **options):
    """A file of one colour per corner, which every format holds without loss."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32, :48], pixels[32:, 48:] = (250, 40, 90), (10, 200, 60)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def test_every_format_that_training_reads_gives_the_same_outputs(served):
    kinds = {"PNG": {}, "BMP": {}, "GIF": {}, "WEBP": {"lossless": True}}
    files = [encode(kind, **options) for kind, options in kinds.items()]
    outputs = served.signatures["serving_bytes"](image_bytes=tf.constant(files))
    logits = outputs["logits"].numpy()
    np.testing.assert_allclose(logits[1:], logits[:1].repeat(3, 0), atol=1e-5)
    assert np.abs(logits[0]).max() > 0.01


def test_formats_that_would_be_misread_are_rejected_with_the_remedy(served):
    frames = [PIL.Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    palette = io.BytesIO()
    colours = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    PIL.Image.fromarray(colours).quantize(16).save(palette, "BMP")
    for content, message in ((buffer, "animated WebP"), (palette, "BMP must have")):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"{message}.*PNG"):
            served.signatures["serving_default"](
                image_bytes=tf.constant([content.getvalue()])
            )


def test_images_smaller_than_the_crop_are_enlarged(served):
    outputs = served.signatures["serving_bytes"](
        image_bytes=tf.constant([runs.image_file(5, 9)])
    )
    assert np.isfinite(outputs["logits"]).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no image", "image 1 of the request .8 bytes. is of another format"),
        (b"", "image 1 of the request .0 bytes. is of another format"),
        (b"GIF89a" + bytes(20), "(?i)gif"),
        (b"II*\0" + bytes(20), "image 1 .* must hold|must hold .* image 1"),
        (runs.image_file(60, 60, format="JPEG")[:300], "(?i)jpeg"),
        (runs.image_file(60, 60, format="PNG")[:300], "(?i)png"),
    ],
)
def test_bytes_that_are_no_image_are_refused(served, content, message):
    files = [runs.image_file(60, 60), content]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        served.signatures["serving_bytes"](image_bytes=tf.constant(files))


def test_bfloat16_run_is_exported_in_float32(tmp_path):
    model = runs.small_model("mixed_bfloat16")
    runs.write_run(tmp_path / "run", model)
    report = saved_model.export_run(tmp_path / "run", tmp_path / "served")
    assert max(report["max_difference"].values()) == 0.0
    assert 1e-4 < report["max_difference_to_run_precision"]["logits"] < 0.3
    exact = runs.small_model()
    exact.set_weights(model.get_weights())
    loaded = tf.saved_model.load(str(tmp_path / "served"))
    outputs = loaded.signatures["serving_floats"](images=tf.constant(random_batch(2)))
    np.testing.assert_allclose(outputs["logits"], exact(random_batch(2)), atol=5e-6)


def test_low_precision_model_is_refused(tmp_path):
    record = RunRecord(runs.CLASS_NAMES, runs.IMAGE_SIZE)
    with pytest.raises(ValueError, match="must compute in float32"):
        saved_model.export_model(
            runs.small_model("mixed_bfloat16"), tmp_path / "served", record
        )


def test_existing_folder_is_left_as_it_is(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "mine").write_text("mine")
    record = RunRecord(runs.CLASS_NAMES, runs.IMAGE_SIZE)
    with pytest.raises(FileExistsError, match="is not overwritten"):
        saved_model.export_model(runs.small_model(), tmp_path / "served", record)
    assert [path.name for path in tmp_path.rglob("*")] == ["served", "mine"]


def test_failure_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("disk full")

    monkeypatch.setattr(saved_model, "_compare", fail)
    record = RunRecord(runs.CLASS_NAMES, runs.IMAGE_SIZE)
    with pytest.raises(RuntimeError, match="disk full"):
        saved_model.export_model(runs.small_model(), tmp_path / "served", record)
    assert list(tmp_path.iterdir()) == []


def test_wrong_outputs_are_found_out(tmp_path, monkeypatch):
    true_answer = serving_signatures.compute_outputs

    def off_by_a_little(*arguments, **options):
        outputs = true_answer(*arguments, **options)
        return {**outputs, "logits": outputs["logits"] + 0.01}

    monkeypatch.setattr(serving_signatures, "compute_outputs", off_by_a_little)
    record = RunRecord(runs.CLASS_NAMES, runs.IMAGE_SIZE)
    with pytest.raises(RuntimeError, match="differ from the model's"):
        saved_model.export_model(runs.small_model(), tmp_path / "served", record)
    assert not (tmp_path / "served").exists()


def test_record_travels_with_the_saved_model(exported):
    record = saved_model.read_record(exported[1])
    assert record.class_names == runs.CLASS_NAMES
    assert record.image_size == runs.IMAGE_SIZE
    assert record.step == runs.STEP
    assert record.loss == "sigmoid_cross_entropy"
    with pytest.raises(FileNotFoundError, match=r"vit-scaling export"):
        saved_model.read_record(exported[1].parent)


def test_record_of_another_image_size_is_refused(tmp_path):
    record = RunRecord(runs.CLASS_NAMES, (64, 64))
    with pytest.raises(ValueError, match="the model takes"):
        saved_model.export_model(runs.small_model(), tmp_path / "served", record)


def test_report_is_json(exported):
    json.dumps(exported[2])


@pytest.mark.parametrize("preprocess", EVALUATION_PREPROCESSING)
def test_bytes_become_the_images_that_evaluation_data_gives(preprocess):
    record = RunRecord(("a",), (32, 32), preprocess=preprocess)
    maker = EVALUATION_PREPROCESSING[preprocess]()
    sizes = [(47, 81), (130, 60), (33, 32), (8, 8)]
    files = [runs.image_file(*size, format="JPEG") for size in sizes]
    pixels = [maker(tf.constant(content), 32, tf.constant([0, 0])) for content in files]
    np.testing.assert_array_equal(
        image_decoding.decode_images(tf.constant(files), record),
        scale_pixels(tf.stack(pixels)),
    )


def test_outputs_that_are_no_numbers_are_found_out_wherever_they_stand(tmp_path):
    model = runs.small_model()
    bias = model.get_layer("head").bias
    bias.assign(np.full(bias.shape, np.nan))  # Features and tokens are as they should.
    record = RunRecord(runs.CLASS_NAMES, runs.IMAGE_SIZE)
    with pytest.raises(RuntimeError, match="outputs differ"):
        saved_model.export_model(model, tmp_path / "out", record)
    assert not list(tmp_path.iterdir())
