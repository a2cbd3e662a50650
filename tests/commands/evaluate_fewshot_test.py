"""The few-shot command on features, a run, a SavedModel and an application."""
# SPDX-License-Identifier: Apache-2.0

import json

import numpy as np
import pytest

from tests.applications.published_folders import write_transformers_folder
from tests.evaluation import records, sets
from tests.export import runs
from vit_scaling.applications import prepare_images
from vit_scaling.applications.weights import build_model, read_weights
from vit_scaling.commands import evaluate_fewshot
from vit_scaling.evaluation import fewshot
from vit_scaling.export import saved_model


def answer(capsys, *flags):
    capsys.readouterr()
    assert evaluate_fewshot.main([*flags, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def write_features(path, data):
    arrays = {name: getattr(data, name) for name in fewshot.ARRAYS}
    np.savez(path, **arrays)


def test_features_in_a_file_give_the_librarys_figures(tmp_path, capsys):
    data = sets.blobs(noise=1.5)
    write_features(tmp_path / "f.npz", data)
    flags = [f"--features={tmp_path}/f.npz", "--shots", "1", "5", "--seeds", "0", "3"]
    result = answer(capsys, *flags)
    found = fewshot.compute_accuracies(data, shots=(1, 5), seeds=(0, 3))[1024.0]
    for shots in (1, 5):
        figures = result["shots"][str(shots)]
        assert figures["mean"] == pytest.approx(found[shots].mean)
        assert figures["interval"] == pytest.approx(found[shots].interval)
        assert figures["per_seed"] == pytest.approx(found[shots].per_seed)
    assert result["l2"] == 1024.0
    more = answer(capsys, *flags, "--l2", "1", "64", "--linear_probe", "--neighbours")
    assert [one["l2"] for one in more["sweep"]] == [1.0, 64.0]
    assert more["shots"] == more["sweep"][0]["shots"]
    assert more["linear_probe"]["accuracy"] > 0.5
    assert more["neighbours"]["accuracy"] > 0.5
    assert evaluate_fewshot.main(flags) == 0
    assert f"{100 * found[5].mean:.2f}" in capsys.readouterr().out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, its SavedModel, and a set of five classes."""
    folder = tmp_path_factory.mktemp("command")
    model = records.model()
    names = [f"c{number}" for number in range(5)]
    options = {"class_names": names, "image_size": [records.SIDE] * 2}
    runs.write_run(folder / "run", model, **options)
    saved_model.export_run(folder / "run", folder / "served" / "1")
    for part, number, seed in (("train", 4, 0), ("test", 3, 1)):
        labels = np.tile(np.arange(5), number)
        pixels = records.images(labels, seed=seed)
        records.write(folder / f"{part}.tfrecord", pixels, labels)
    (folder / "classes.txt").write_text("\n".join(names) + "\n")
    return folder


def test_run_and_its_saved_model_give_the_same_features(folder, tmp_path, capsys):
    images = [f"--train={folder}/train.tfrecord", f"--test={folder}/test.tfrecord"]
    both = []
    for model in (f"--model_dir={folder}/run", f"--saved_model={folder}/served"):
        kept = f"--save_features={tmp_path}/features.npz"
        result = answer(capsys, model, *images, "--shots", "2", kept, "--batch_size=10")
        assert result["train_images"] == 20
        assert result["width"] == 32
        with np.load(tmp_path / "features.npz") as arrays:
            both.append(dict(arrays))
    for name in fewshot.ARRAYS:
        np.testing.assert_allclose(both[0][name], both[1][name], atol=1e-5)
    assert both[0]["train_labels"].tolist() == [0, 1, 2, 3, 4] * 4
    assert result["shots"]["2"]["mean"] > 0.4


def test_application_is_evaluated(folder, capsys):
    result = answer(
        capsys,
        "--application=ViTTi16",
        "--image_size=32",
        f"--train={folder}/train.tfrecord",
        f"--test={folder}/test.tfrecord",
        "--shots=1",
        "--batch_size=20",
    )
    assert result["width"] == 192
    assert result["shots"]["1"]["mean"] > 0.2


def test_published_weights_get_the_images_that_they_were_trained_on(
    folder, tmp_path, capsys
):
    published = str(write_transformers_folder(tmp_path / "published"))
    flags = [f"--{part}={folder}/{part}.tfrecord" for part in ("train", "test")]
    saved = f"--save_features={tmp_path}/f.npz"
    answer(capsys, f"--model={published}", *flags, "--shots=1", saved)
    model = build_model(read_weights(published, ignore="classifier.*"))
    assert model.record.interpolation == "bicubic"
    photos = records.images(np.tile(np.arange(5), 3), seed=1)
    expected = model(prepare_images(photos, model.record))
    with np.load(tmp_path / "f.npz") as features:
        np.testing.assert_allclose(features["test_features"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "received none"),
        (["--features=a", "--model_dir=b"], "received --features, --model_dir"),
        (["--features=/nowhere.npz"], "/nowhere.npz"),
        (["--model_dir=a"], "A model needs images"),
        (["--application=ViTX", "--train=a", "--test=b"], "is called 'ViTX'. Known"),
        (
            ["--application=preprocess_input", "--train=a", "--test=b"],
            "is called 'preprocess_input'. Known: ViTB8",
        ),
        (["--features=a", "--layer=b"], "--layer has no effect with --features"),
        (["--features=a", "--train=b"], "--train has no effect with --features"),
        (["--features=a", "--test=b"], "--test has no effect with --features"),
        (["--features=a", "--tfds=b"], "--tfds has no effect with --features"),
        (["--features=a", "--data_dir=b"], "--data_dir has no effect with --feat"),
        (["--features=a", "--classes=3"], "--classes has no effect with --features"),
        (["--features=a", "--batch_size=3"], "--batch_size has no effect with --feat"),
        (["--model_dir=a", "--image_size=9"], "--image_size has no effect with --mo"),
        (["--saved_model=a", "--image_size=9"], "--image_size has no effect with"),
        (["--model_dir=a", "--data_dir=b"], "no effect without --tfds"),
        (["--saved_model=a", "--layer=b"], "--layer has no effect with --saved_model"),
        (["--saved_model=a", "--averages"], "--averages has no effect with --saved"),
        (["--model_dir=a", "--weights=b"], "--weights has no effect with --model_dir"),
        (
            ["--features=a", "--save_features=/no/f.npz"],
            "The folder '/no' of 'f.npz' does not exist",
        ),
        (["--saved_model={}/run", "--train=a", "--test=b"], "No saved_model.pb"),
        (
            ["--model_dir={}/run", "--train={}/none*", "--test={}/none*"],
            "`pattern` fits no file",
        ),
        (
            [
                "--model_dir={}/run",
                "--train={}/train.tfrecord",
                "--test={}/test.tfrecord",
                "--layer=nope",
            ],
            "received 'nope'",
        ),
    ],
)
def test_wrong_input_is_named(folder, capsys, flags, message):
    given = [flag.replace("{}", str(folder)) for flag in flags]
    assert evaluate_fewshot.main(given) == 1
    assert message in capsys.readouterr().err


def test_too_few_images_are_named(tmp_path, capsys):
    write_features(tmp_path / "f.npz", sets.blobs(train=3))
    assert evaluate_fewshot.main([f"--features={tmp_path}/f.npz"]) == 1
    assert "`shots`=25 needs that many" in capsys.readouterr().err


def test_unequal_class_counts_need_a_number(folder, tmp_path, capsys):
    for part in ("train", "test"):
        name = f"{part}.tfrecord"
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    flags = [
        f"--model_dir={folder}/run",
        f"--train={tmp_path}/train.tfrecord",
        f"--test={tmp_path}/test.tfrecord",
    ]
    assert evaluate_fewshot.main(flags) == 1
    assert "Give --classes" in capsys.readouterr().err
