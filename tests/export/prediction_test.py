"""Predictions of files and records name the classes that the SavedModel answers."""
# SPDX-License-Identifier: Apache-2.0

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.export import runs
from vit_scaling import image_preprocessing
from vit_scaling.commands import export, predict
from vit_scaling.export import prediction


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, exported by the command, and images of it as files and records."""
    folder = tmp_path_factory.mktemp("prediction")
    runs.write_run(folder / "run", runs.small_model())
    arguments = [f"--model_dir={folder}/run", f"--output_dir={folder}/served"]
    assert export.main(arguments) == 0
    (folder / "images").mkdir()
    with tf.io.TFRecordWriter(str(folder / "a.tfrecord")) as writer:
        for number in range(5):
            content = runs.image_file(60, 70, seed=number)
            (folder / "images" / f"{number}.png").write_bytes(content)
            features = {
                "image/encoded": tf.train.Feature(
                    bytes_list=tf.train.BytesList(value=[content])
                ),
                "image/class/label": tf.train.Feature(
                    int64_list=tf.train.Int64List(value=[number % 4])
                ),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())
    return folder


def expected(folder):
    loaded = tf.saved_model.load(str(folder / "served"))
    files = [runs.image_file(60, 70, seed=number) for number in range(5)]
    outputs = loaded.signatures["serving_bytes"](image_bytes=tf.constant(files))
    best = np.argmax(outputs["logits"].numpy(), axis=1)
    names = [runs.CLASS_NAMES[number] for number in best]
    return names, outputs["probabilities"].numpy().max(axis=1)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_files_are_predicted_in_order_whatever_the_batch(folder, batch_size):
    made = list(
        prediction.predict(
            prediction.read_image_files(
                prediction.list_image_files([str(folder / "images")])
            ),
            prediction.make_local_predictor(folder / "served"),
            batch_size=batch_size,
        )
    )
    names, probabilities = expected(folder)
    assert [one.name for one in made] == [
        str(folder / "images" / f"{number}.png") for number in range(5)
    ]
    assert [one.classes[0] for one in made] == names
    # Batches of another size round differently.
    np.testing.assert_allclose(
        [one.probabilities[0] for one in made], probabilities, rtol=1e-5
    )


def test_command_prints_names_and_probabilities_of_records(folder, capsys):
    arguments = [f"--saved_model={folder}/served", f"--tfrecords={folder}/*.tfrecord"]
    capsys.readouterr()
    assert predict.main([*arguments, "--json", "--limit=3"]) == 0
    answers = json.loads(capsys.readouterr().out)["predictions"]
    names, probabilities = expected(folder)
    assert [answer["classes"][0] for answer in answers] == names[:3]
    assert [answer["label"] for answer in answers] == [0, 1, 2]
    assert predict.main([*arguments, "--limit=1"]) == 0
    text = capsys.readouterr().out
    assert f"{probabilities[0]:.4f}" in text
    assert names[0] in text


@pytest.mark.parametrize("model", ["--saved_model={}/served", "--model_dir={}/run"])
def test_labels_of_records_are_mapped_by_name(folder, tmp_path, capsys, model):
    shutil.copy(folder / "a.tfrecord", tmp_path)  # Labels 0, 1, 2, 3, 0.
    flags = [model.format(folder), f"--tfrecords={tmp_path}/*.tfrecord", "--json"]
    (tmp_path / "classes.txt").write_text("dog\ncat\nbee\nant\n")
    capsys.readouterr()
    assert predict.main(flags) == 0
    answers = json.loads(capsys.readouterr().out)["predictions"]
    assert [answer["label"] for answer in answers] == [3, 2, 1, 0, 3]
    (tmp_path / "classes.txt").write_text("dog\ncow\nbee\nant\n")
    assert predict.main(flags) == 1
    assert "classes that the model does not have: 'cow'" in capsys.readouterr().err
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    assert predict.main(flags) == 1
    assert "has label 2, and the set's classes.txt names 2" in capsys.readouterr().err


def test_highest_numbered_version_is_taken(folder, tmp_path):
    for version in ("2", "10", "latest"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "saved_model.pb").touch()
    assert prediction.find_version_folder(tmp_path).name == "10"
    assert prediction.find_version_folder(folder / "served") == folder / "served"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--saved_model=/nowhere", "--images={}/images"], "No saved_model.pb in /now"),
        (["--saved_model={}/served"], "either --images or --tfrecords"),
        (["--saved_model={}/served", "--images", "{}/no.png"], "No image at"),
        (["--saved_model={}/served", "--tfrecords={}/no"], "No TFRecord file matches"),
        (
            ["--saved_model={}/served", "--tfrecords={}/a.tfrecord", "--image_key=jpg"],
            "under 'jpg'; name the right one of its features: image/class/label, "
            "image/encoded.",
        ),
        (
            ["--saved_model={}/served", "--images", "{}/images/0.png", "{}/a.tfrecord"],
            "a.tfrecord: does not decode",
        ),
        (
            ["--saved_model={}/served", "--images={}/images", "--batch_size=0"],
            "`batch_size` must be at least 1; received 0",
        ),
        (
            ["--saved_model={}/served", "--images={}/images", "--version=2"],
            "--version has no effect with --saved_model",
        ),
    ],
)
def test_wrong_input_is_named(folder, capsys, flags, message):
    assert predict.main([flag.replace("{}", str(folder)) for flag in flags]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_damaged_images_fail_and_the_others_are_predicted(
    folder, tmp_path, capsys, format
):
    intact = runs.image_file(60, 70, format=format)
    for number, content in enumerate([intact, intact[:200] + b"garbage", intact, b""]):
        (tmp_path / f"{number}.{format.lower()}").write_bytes(content)
    flags = [f"--saved_model={folder}/served", f"--images={tmp_path}", "--json"]
    capsys.readouterr()
    assert predict.main(flags) == 1
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    names = [Path(row["name"]).stem for row in result["predictions"]]
    assert names == ["0", "2"] and result["images"] == 4
    assert result["predictions"][0]["probabilities"] == pytest.approx(
        result["predictions"][1]["probabilities"]
    )
    assert [Path(row["name"]).stem for row in result["failed"]] == ["1", "3"]
    assert "2 of 4 images failed:" in printed.err
    assert f"{tmp_path}/1.{format.lower()}: The model refused" in printed.err


def test_a_batch_that_only_is_too_large_is_predicted_image_by_image():
    def refuse_several(contents):  # Such as a server with a smaller largest batch.
        if len(contents) > 1:
            raise ValueError("Too many.")
        return [["ant"]], [[1.0]]

    images = [prediction.NamedImage("a.png"), prediction.NamedImage("b.png")]
    found = list(prediction.predict(images, refuse_several))
    assert [row.classes for row in found] == [("ant",), ("ant",)]


def test_export_of_no_run_says_so(tmp_path, capsys):
    assert export.main([f"--model_dir={tmp_path}", f"--output_dir={tmp_path}/o"]) == 1
    assert "No model.json" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_read_in_every_format(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = (200, 40, 90)
    for kind in ("PNG", "GIF", "BMP", "WEBP", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        Image.fromarray(pixels).save(tmp_path / f"{kind}.img", kind, **options)
    Image.fromarray(pixels).quantize(4).save(tmp_path / "palette.bmp")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    files = prediction.list_image_files([str(tmp_path)])
    found = list(prediction.read_image_files(files))
    assert len(found) == 6
    for image in found:
        decoded = image_preprocessing.decode(tf.constant(image.content)).numpy()
        np.testing.assert_allclose(decoded, pixels, atol=1, err_msg=image.name)


def test_files_that_cannot_be_read_carry_the_reason(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    files = [str(tmp_path / "notes.txt"), str(tmp_path / "gone.png")]
    notes, gone = prediction.read_image_files(files)
    assert "no known image format" in notes.error and "No such file" in gone.error
    with pytest.raises(FileNotFoundError, match="No image at"):
        prediction.list_image_files([str(tmp_path)])
