"""The parity study decodes once, runs what is missing, and compares the ends."""
# SPDX-License-Identifier: Apache-2.0

import io
import json
import pathlib
import tarfile

import numpy as np
import pytest
from PIL import Image

from vit_scaling.commands import benchmark
from vit_scaling.commands.benchmarks import parity, parity_data


@pytest.fixture
def archive(tmp_path):
    """A tar of 2 classes: 4 dark training images and 2 bright ones, 1 test image each.

    Its outer folder differs from CIFAR-10's.
    """
    path = tmp_path / "images.tar"
    with tarfile.open(path, "w") as tar:
        for name, count in {"train/cat": 4, "train/dog": 2, "test/cat": 1,
                            "test/dog": 1}.items():  # fmt: skip
            for number in range(count):
                file = io.BytesIO()
                grey = 30 if name.endswith("cat") else 220
                Image.new("RGB", (32, 32), (grey,) * 3).save(file, "JPEG")
                info = tarfile.TarInfo(f"set/{name}/{number}.jpg")
                info.size = file.tell()
                file.seek(0)
                tar.addfile(info, file)
    return path


def test_images_are_decoded_once_with_classes_in_order_of_name(archive, tmp_path):
    path, classes = parity.decode_images(str(archive), tmp_path / "o" / "images.npz")
    images = parity_data.read_images(str(path))
    assert classes == 2 and images.train_images.shape == (6, 32, 32, 3)
    dark = images.train_images.mean(axis=(1, 2, 3)) < 100
    np.testing.assert_array_equal(images.train_labels, np.where(dark, 0, 1))
    assert sorted(images.test_labels) == [0, 1]
    archive.unlink()
    assert parity.decode_images(str(archive), path) == (path, 2)


@pytest.fixture
def commands(monkeypatch):
    """Replaces the trainings: every run ends with accuracies by its side and seed."""
    started = []

    def run(command, log):
        started.append(command)
        settings = parity_data.Settings(**json.loads(command[-1]))
        pathlib.Path(settings.folder).mkdir()
        better = 0.1 if "big_vision" in settings.folder else 0.0
        settings.save_result([0.3, 0.5 + better + settings.seed / 100])
        return 0

    monkeypatch.setattr(parity, "run_and_show", run)
    return started


def run_study(archive, output, capsys, *flags):
    code = benchmark.main(
        ["parity", "--json", f"--images={archive}", "--big_vision=BV", "--python=PY",
         f"--output_dir={output}", "--epochs=2", "--batch_size=2", *flags]
    )  # fmt: skip
    out = capsys.readouterr().out
    return json.loads(out) if code == 0 else code


def test_only_missing_runs_are_started(archive, commands, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    output = tmp_path / "out"
    first = run_study(archive, output, capsys, "--seeds=0")
    assert len(commands) == 2 and first["standard_error"] is None
    assert "PY" in commands[1] and commands[1][1].endswith("BV")
    result = run_study(archive, output, capsys, "--seeds=0,1,2")
    assert len(commands) == 6
    assert result["mean"]["vit_scaling"] == pytest.approx(0.51)
    (table,) = parity.tables(result)
    assert table.columns[1:] == ("epoch 1", "epoch 2")
    assert table.rows[3] == ("this package, mean", "30.0%", "51.0%")
    assert {"parity.json", "parity.svg"} <= {path.name for path in output.iterdir()}
    assert run_study(archive, output, capsys, "--width=48") == 1  # Other settings.


def test_the_standard_error_is_that_of_a_difference_of_means():
    ours, peer = [0.50, 0.51, 0.52], [0.52, 0.52, 0.55]
    result = parity.compare({"vit_scaling": ours, "big_vision": peer})
    expected = np.sqrt(np.var(ours, ddof=1) / 3 + np.var(peer, ddof=1) / 3)
    assert result["standard_error"] == pytest.approx(expected)
    assert result["difference"] == pytest.approx(-0.02)
    assert result["within_two_standard_errors"] == (2 * expected >= 0.02)


def test_a_training_that_fails_is_an_error_that_names_its_log(
    archive, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(parity, "run_and_show", lambda command, log: 3)
    arguments = ["--big_vision=BV", "--python=PY", f"--output_dir={tmp_path}"]
    assert benchmark.main(["parity", f"--images={archive}", *arguments]) == 1
    error = capsys.readouterr().err
    assert "failed with exit code 3" in error and "vit_scaling_0.log" in error
