"""Shards: whole, verified, resumable, with the training split's class indices."""
# SPDX-License-Identifier: Apache-2.0

import collections
import io
import json
import pathlib
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.data import sets
from tests.data.bad_records_test import bomb
from vit_scaling.commands import inspect_tfrecords, verify_tfrecords, write_tfrecords
from vit_scaling.data import writing
from vit_scaling.data.entries import Digits, Folder
from vit_scaling.data.listings import CsvList, Tars
from vit_scaling.data.records_in import Records, values
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.verification import verify


def write(source, path, **options):
    return writing.write_tfrecords(
        source,
        output_dir=str(path),
        **{"split": "train", "num_shards": 3, "workers": 1, **options},
    )


def examples(path, split="train"):
    """All records of a split, by key, read by TensorFlow's own reader."""
    files = sorted(str(file) for file in pathlib.Path(path).glob(f"{split}-*.tfrecord"))
    found = {}
    for data in tf.data.TFRecordDataset(files).as_numpy_iterator():
        example = tf.train.Example.FromString(data)
        key = values(example, "image/filename")[0].decode()
        assert key not in found
        found[key] = example
    return found


@pytest.fixture
def folder(tmp_path):
    return sets.folder(tmp_path / "images", {"cat": 5, "dog": 9, "emu": 3})


def test_a_folder_becomes_standard_examples_with_nothing_lost(folder, tmp_path):
    manifest = write(Folder(str(folder)), tmp_path / "out")
    found = examples(tmp_path / "out")
    files = {str(p.relative_to(folder)): p for p in folder.rglob("*.png")}
    assert set(found) == set(files)
    for key, example in found.items():
        assert values(example, "image/encoded")[0] == files[key].read_bytes()
        name = key.split("/")[0]
        assert list(values(example, "image/class/label")) == [
            ["cat", "dog", "emu"].index(name)
        ]
        assert values(example, "image/class/text")[0] == name.encode()
        assert list(values(example, "image/height")) == [24]
        assert list(values(example, "image/width")) == [24]
        assert values(example, "image/format")[0] == b"png"
    assert manifest["class_counts"] == {"cat": 5, "dog": 9, "emu": 3}
    assert manifest["records"] == sum(row["records"] for row in manifest["shards"])
    assert verify(str(tmp_path / "out/train.manifest.json"))["fault_count"] == 0
    assert TFRecords(str(tmp_path / "out/train-*")).class_names == ("cat", "dog", "emu")


def test_digits_are_whole_and_real(tmp_path):
    from sklearn.datasets import load_digits

    for split, count in (("train", 1438), ("test", 359)):
        assert write(Digits(split), tmp_path, split=split)["records"] == count
    digits = load_digits()
    for split in ("train", "test"):
        for key, example in list(examples(tmp_path, split).items())[:50]:
            number = int(key[7:11])
            with Image.open(io.BytesIO(values(example, "image/encoded")[0])) as image:
                pixels = np.asarray(image) / (255 / 16)
            np.testing.assert_allclose(pixels, digits.images[number], atol=0.04)
            assert values(example, "image/class/label")[0] == digits.target[number]


def test_a_killed_writer_goes_on_without_losing_or_doubling(
    folder, tmp_path, monkeypatch
):
    whole = write(Folder(str(folder)), tmp_path / "whole", num_shards=6)
    real, written = writing.write_shard, []

    def die_in_the_third(task):
        if len(written) == 2:
            pathlib.Path(task.path + ".part").write_bytes(b"half a shard")
            raise KeyboardInterrupt
        written.append(task.path)
        return real(task)

    monkeypatch.setattr(writing, "write_shard", die_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        write(Folder(str(folder)), tmp_path / "out", num_shards=6)
    assert not (tmp_path / "out/train.manifest.json").exists()
    again = []
    monkeypatch.setattr(
        writing, "write_shard", lambda task: again.append(task.path) or real(task)
    )
    resumed = write(Folder(str(folder)), tmp_path / "out", num_shards=6)
    assert len(again) == 4  # What was whole stayed.
    assert resumed == whole
    assert len(examples(tmp_path / "out")) == 17
    left = [p.name for p in (tmp_path / "out").rglob("*") if "part" in p.name]
    assert not left


@pytest.mark.slow
def test_kill_9_at_random_moments_loses_and_doubles_nothing(tmp_path):
    images = sets.folder(tmp_path / "images", {"a": 150, "b": 150}, side=16)
    command = [
        sys.executable,
        "-m",
        "vit_scaling.commands.write_tfrecords",
        f"--source=folder:{images}",
        f"--output_dir={tmp_path / 'out'}",
        "--num_shards=40",
        "--workers=2",
    ]
    generator = np.random.default_rng(0)
    run = "import sys; from vit_scaling.commands.write_tfrecords import main; main()"
    command[1:3] = ["-c", run]
    for _ in range(5):
        process = subprocess.Popen(command, start_new_session=True)
        time.sleep(generator.uniform(3, 12))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True)
    assert len(examples(tmp_path / "out")) == 300
    assert verify(str(tmp_path / "out/train.manifest.json"))["fault_count"] == 0


def test_several_processes_write_the_same_bytes(folder, tmp_path):
    one = write(Folder(str(folder)), tmp_path / "one")
    two = write(Folder(str(folder)), tmp_path / "two", workers=2)
    assert one == two


def test_a_finished_split_is_kept_and_another_is_not_overwritten(folder, tmp_path):
    first = write(Folder(str(folder)), tmp_path / "out")
    assert write(Folder(str(folder)), tmp_path / "out") == first
    (folder / "cat/0000.png").unlink()
    with pytest.raises(ValueError, match="already holds split 'train'"):
        write(Folder(str(folder)), tmp_path / "out")
    again = write(Folder(str(folder)), tmp_path / "out", overwrite=True, num_shards=2)
    assert again["records"] == first["records"] - 1
    assert len(list((tmp_path / "out").glob("*.tfrecord"))) == 2


def test_classes_come_from_the_training_split(folder, tmp_path, caplog):
    write(Folder(str(folder)), tmp_path / "out")
    fewer = sets.folder(tmp_path / "fewer", {"emu": 2})
    write(Folder(str(fewer)), tmp_path / "out", split="test")
    assert "no image of 2 of the 3 classes (cat, dog)" in caplog.text
    for example in examples(tmp_path / "out", "test").values():
        assert list(values(example, "image/class/label")) == [2]
    more = sets.folder(tmp_path / "more", {"emu": 1, "fox": 1})
    with pytest.raises(ValueError, match=r"does not know: 'fox' .*training first"):
        write(Folder(str(more)), tmp_path / "out", split="other")


def test_unusable_images_are_left_out_with_a_reason(folder, tmp_path):
    photo = sets.tile(0)
    bad = {
        "empty.png": (b"", "0 bytes"),
        "cut.png": ((folder / "dog/0005.png").read_bytes()[:300], "does not decode"),
        "text.jpg": (b"no image", "no known image format"),
        "bomb.png": (bomb(), "60000×60000 is more than 100000000 pixels"),
        "web.webp": (sets.encoded(photo, "WEBP"), "format WEBP cannot be read"),
    }
    for name, (data, _) in bad.items():
        (folder / "cat" / name).write_bytes(data)
    manifest = write(Folder(str(folder)), tmp_path / "out")
    assert manifest["records"] == 17
    reasons = {row["key"]: row["reason"] for row in manifest["left_out_named"]}
    assert manifest["left_out"] == len(bad)
    for name, (_, reason) in bad.items():
        assert reason in reasons[f"cat/{name}"]
    settings = writing.Settings(reencode="jpeg")
    anew = write(Folder(str(folder)), tmp_path / "anew", settings=settings)
    assert anew["records"] == 18  # WebP can be read now.
    for example in examples(tmp_path / "anew").values():
        assert values(example, "image/format") == [b"jpeg"]


def test_csv_lists_give_several_labels(folder, tmp_path):
    listing = folder / "list.csv"
    listing.write_text("path,labels\ncat/0000.png,cat;pet\ndog/0005.png,\n")
    manifest = write(CsvList(str(listing)), tmp_path / "out")
    assert manifest["class_counts"] == {"cat": 1, "pet": 1}
    found = examples(tmp_path / "out")
    assert list(values(found["cat/0000.png"], "image/class/label")) == [0, 1]
    listing.write_text("file,labels\nx,y\n")
    with pytest.raises(ValueError, match="columns `path` and `labels`"):
        CsvList(str(listing)).entries()


def test_tars_are_read_in_place(folder, tmp_path):
    for name in ("cat", "dog"):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for file in sorted((folder / name).iterdir()):
                tar.add(file, file.name)
    write(Tars(str(tmp_path / "*.tar")), tmp_path / "out")
    found = examples(tmp_path / "out")
    assert len(found) == 14
    for key, example in found.items():
        path = folder / key
        assert values(example, "image/encoded")[0] == path.read_bytes()
        assert values(example, "image/class/text")[0].decode() == key.split("/")[0]
    with tarfile.open(tmp_path / "x.tar", "w:gz") as tar:
        tar.add(folder / "cat")
    with pytest.raises(ValueError, match="must be an uncompressed tar file"):
        Tars(str(tmp_path / "x.tar")).entries()


def test_a_finished_set_is_written_again(folder, tmp_path):
    write(Folder(str(folder)), tmp_path / "out")
    source = Records(TFRecords(str(tmp_path / "out/train.manifest.json")))
    again = write(source, tmp_path / "again", num_shards=1)
    assert again["class_counts"] == {"cat": 5, "dog": 9, "emu": 3}
    before, after = examples(tmp_path / "out"), examples(tmp_path / "again")
    assert before == after


def test_doubled_keys_and_no_images_are_refused(tmp_path):
    (tmp_path / "images/a").mkdir(parents=True)
    with pytest.raises(ValueError, match="must have images; received none"):
        write(Folder(str(tmp_path / "images")), tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="one subfolder per class"):
        Folder(str(tmp_path / "images/a"))
    with pytest.raises(FileNotFoundError, match="must be a folder"):
        Folder("/nowhere")


def test_shards_spread_the_classes(tmp_path):
    images = sets.folder(tmp_path / "images", {"a": 30, "b": 30}, side=8)
    write(Folder(str(images)), tmp_path / "out", num_shards=2)
    first = tmp_path / "out" / writing.shard_name("train", 0, 2)
    counts = collections.Counter(
        values(tf.train.Example.FromString(data), "image/class/label")[0]
        for data in tf.data.TFRecordDataset(str(first)).as_numpy_iterator()
    )
    assert min(counts[0], counts[1]) >= 6  # 15 ± 3.5 standard deviations of 2.7.


def test_the_commands_write_verify_and_inspect(folder, tmp_path, capsys):
    out = str(tmp_path / "out")
    source = f"--source=folder:{folder}"
    more = ["--workers=1", "--num_shards=2", "--json"]
    assert write_tfrecords.main([source, f"--output_dir={out}", *more]) == 0
    assert json.loads(capsys.readouterr().out)["records"] == 17
    manifest = f"--pattern={out}/train.manifest.json"
    assert verify_tfrecords.main([manifest]) == 0
    assert "17 records in 2 shards checked" in capsys.readouterr().out
    sheets = f"--output_dir={tmp_path}"
    assert inspect_tfrecords.main([manifest, sheets, "--images=6", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["class_counts"] == {"cat": 5, "dog": 9, "emu": 3}
    assert result["formats"] == {"PNG, 3 channels": 17}
    assert result["sizes"]["width"] == {"min": 24, "median": 24, "max": 24}
    for name in ("contact", "augmented"):
        with Image.open(tmp_path / f"{name}.png") as sheet:
            assert min(sheet.size) > 96
    shard = next((tmp_path / "out").glob("*00001-of*.tfrecord"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    assert verify_tfrecords.main([manifest]) == 1
    told = capsys.readouterr().out
    assert "its SHA-256 is not the manifest's" in told
    assert "record" in told
    assert "its bytes fail their checksum" in told
    assert write_tfrecords.main(["--source=zip:x", f"--output_dir={out}"]) == 1
    assert "`source` must be one of folder:PATH" in capsys.readouterr().err
