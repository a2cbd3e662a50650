"""Shards: whole, verified, resumable, with the training split's class indices."""
# SPDX-License-Identifier: Apache-2.0

import collections
import contextlib
import io
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
from vit_scaling.data.examples import feature_values
from vit_scaling.data.tfrecords import TFRecords, shard_name
from vit_scaling.data.writing import shard_writer, split_writer
from vit_scaling.data.writing.image_files import CsvFile, Folder
from vit_scaling.data.writing.image_sources import Digits, RecordImages
from vit_scaling.data.writing.tar_files import TarFiles
from vit_scaling.data.writing.verification import verify


def write(source, path, **options):
    return split_writer.write_tfrecords(
        source,
        output_dir=str(path),
        **{"split": "train", "num_shards": 3, "workers": 1, **options},
    )


def examples(path, split="train"):
    """All records of a split, by key, read by TensorFlow's own reader."""
    files = sorted(str(file) for file in pathlib.Path(path).glob(f"{split}-*.tfrecord"))
    result = {}
    for data in tf.data.TFRecordDataset(files).as_numpy_iterator():
        example = tf.train.Example.FromString(data)
        key = feature_values(example, "image/filename")[0].decode()
        assert key not in result
        result[key] = example
    return result


@pytest.fixture
def folder(tmp_path):
    return sets.folder(tmp_path / "images", {"cat": 5, "dog": 9, "emu": 3})


def test_a_folder_becomes_standard_examples_with_nothing_lost(folder, tmp_path):
    manifest = write(Folder(str(folder)), tmp_path / "out")
    result = examples(tmp_path / "out")
    files = {str(p.relative_to(folder)): p for p in folder.rglob("*.png")}
    assert set(result) == set(files)
    for key, example in result.items():
        assert feature_values(example, "image/encoded")[0] == files[key].read_bytes()
        name = key.split("/")[0]
        assert list(feature_values(example, "image/class/label")) == [
            ["cat", "dog", "emu"].index(name)
        ]
        assert feature_values(example, "image/class/text")[0] == name.encode()
        assert list(feature_values(example, "image/height")) == [24]
        assert list(feature_values(example, "image/width")) == [24]
        assert feature_values(example, "image/format")[0] == b"png"
    assert manifest["class_counts"] == {"cat": 5, "dog": 9, "emu": 3}
    assert manifest["records"] == sum(row["records"] for row in manifest["shards"])
    assert verify(str(tmp_path / "out/train.manifest.json"))["fault_count"] == 0
    assert TFRecords(str(tmp_path / "out/train-*")).class_names == ("cat", "dog", "emu")


def test_digits_are_complete_and_equal_to_scikit_learns(tmp_path):
    from sklearn.datasets import load_digits

    for split, count in (("train", 1438), ("test", 359)):
        assert write(Digits(split), tmp_path, split=split)["records"] == count
    digits = load_digits()
    for split in ("train", "test"):
        for key, example in list(examples(tmp_path, split).items())[:50]:
            number = int(key[7:11])
            with Image.open(
                io.BytesIO(feature_values(example, "image/encoded")[0])
            ) as image:
                pixels = np.asarray(image) / (255 / 16)
            np.testing.assert_allclose(pixels, digits.images[number], atol=0.04)
            assert (
                feature_values(example, "image/class/label")[0] == digits.target[number]
            )


def test_a_killed_writer_continues_without_loss_or_duplicates(
    folder, tmp_path, monkeypatch
):
    complete = write(Folder(str(folder)), tmp_path / "whole", num_shards=6)
    real, written = shard_writer.write_shard, []

    def die_in_the_third(task, on_image):
        if len(written) == 2:
            pathlib.Path(task.path + ".part").write_bytes(b"half a shard")
            raise KeyboardInterrupt
        written.append(task.path)
        return real(task, on_image)

    monkeypatch.setattr(shard_writer, "write_shard", die_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        write(Folder(str(folder)), tmp_path / "out", num_shards=6)
    assert not (tmp_path / "out/train.manifest.json").exists()
    again = []
    monkeypatch.setattr(
        shard_writer,
        "write_shard",
        lambda task, on_image: again.append(task.path) or real(task, on_image),
    )
    resumed = write(Folder(str(folder)), tmp_path / "out", num_shards=6)
    assert len(again) == 4  # What was whole stayed.
    assert resumed == complete
    assert len(examples(tmp_path / "out")) == 17
    left = [p.name for p in (tmp_path / "out").rglob("*") if "part" in p.name]
    assert not left


def state(path):
    """The content of every file of a folder; the time of change shows a rewrite."""
    return {
        str(p.relative_to(path)): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in pathlib.Path(path).rglob("*")
        if p.is_file()
    }


def test_a_rerun_writes_what_is_missing_of_a_finished_split(folder, tmp_path):
    out = tmp_path / "out"
    manifest = write(Folder(str(folder)), out, num_shards=6)
    complete = state(out)
    damages = {
        "train-00001-of-00006.tfrecord": lambda path: path.unlink(),
        "train-00002-of-00006.tfrecord": lambda path: path.write_bytes(b"short"),
        "index/train-00003-of-00006.tfrecord.offsets.npy": lambda path: path.unlink(),
    }
    for name, damage in damages.items():
        damage(out / name)
    next(out.glob("index/train-00004-of-00006.tfrecord.keys-*")).unlink()
    calls = []
    again = write(
        Folder(str(folder)), out, num_shards=None, progress=lambda *n: calls.append(n)
    )
    assert again == manifest
    after = state(out)
    assert {n: data for n, (data, _) in after.items()} == {
        n: data for n, (data, _) in complete.items()
    }
    kept = {n for n in complete if after[n] == complete[n]}
    assert "train-00000-of-00006.tfrecord" in kept and "train.manifest.json" in kept
    rewritten = sum(row["records"] for row in manifest["shards"][1:5])
    assert calls == [(17 - rewritten + n, 17) for n in range(rewritten + 1)]
    assert verify(str(out / "train.manifest.json"))["fault_count"] == 0


def test_a_rerun_with_changed_images_is_reported(folder, tmp_path):
    out = tmp_path / "out"
    write(Folder(str(folder)), out, num_shards=1)
    next(out.glob("*.tfrecord")).unlink()
    first, second = sorted(folder.rglob("*.png"))[:2]
    size = first.stat().st_size
    first.write_bytes(second.read_bytes()[:size].ljust(size, b"\0"))  # The same size.
    with pytest.raises(ValueError, match="its content differs from the manifest's"):
        write(Folder(str(folder)), out, num_shards=1)


def test_partial_files_are_removed_before_any_image_is_written(folder, tmp_path):
    out = tmp_path / "out"
    (out / "index").mkdir(parents=True)
    names = [
        ".partial-12ab-train-00000-of-00003.tfrecord",
        "train-00001-of-00003.tfrecord.part",
        ".partial-34cd-train.manifest.json",
        "index/.partial-56ef-train-00002-of-00009.tfrecord.offsets.npy",
        ".partial-12ab-train-extra-00000-of-00003.tfrecord",
    ]
    for name in names:
        (out / name).write_bytes(b"half")
    seen = []
    write(
        Folder(str(folder)),
        out,
        progress=lambda *_: seen.append([n for n in names if (out / n).exists()]),
    )
    assert seen[0] == names[-1:]  # That of another split is left.


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_reported_and_the_rerun_finishes(tmp_path, workers):
    """On a real full disk: a file system of 3 MiB in memory."""
    images = sets.folder(tmp_path / "images", {"a": 400}, side=16)
    command = [sys.executable, "-m", "vit_scaling.commands.write_tfrecords"]
    command += [f"--source=folder:{images}", "--num_shards=10", f"--workers={workers}"]
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        filling = disk / "filling"
        filling.write_bytes(b"\0" * (3 * 2**20 - 300_000))
        failed = subprocess.run(
            [*command, f"--output_dir={disk}/out"],
            check=False,
            capture_output=True,
            text=True,
        )
        assert failed.returncode == 1
        assert "No space left on device" in failed.stderr
        assert failed.stderr.count("error:") == 1
        assert not [p for p in disk.rglob("*") if "partial" in p.name]
        # Left by a writer that was killed: as large as what the rerun needs.
        left = disk / "out/.partial-12ab-train-00009-of-00010.tfrecord"
        with contextlib.suppress(OSError):
            left.write_bytes(b"\0" * 3 * 2**20)
        filling.write_bytes(b"\0" * (3 * 2**20 - 900_000))
        subprocess.run([*command, f"--output_dir={disk}/out"], check=True)
        assert verify(f"{disk}/out/train.manifest.json")["fault_count"] == 0
        assert len(examples(disk / "out")) == 400
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def alive(pid):
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_kill_9_at_random_moments_loses_and_duplicates_nothing(tmp_path):
    """Twenty kills; each next run starts at once, next to what the killed one left."""
    images = sets.folder(tmp_path / "images", {"a": 150, "b": 150}, side=16)
    command = [sys.executable, "-m", "vit_scaling.commands.write_tfrecords"]
    command += [f"--source=folder:{images}", "--num_shards=40"]
    subprocess.run([*command, f"--output_dir={tmp_path / 'whole'}"], check=True)
    out = tmp_path / "out"
    command.append(f"--output_dir={out}")
    generator = np.random.default_rng(0)

    def whole():
        return len(list(out.glob("*.tfrecord")))

    reached = []
    for kill in range(20):
        # Kills before the first shard, between shards and within them.
        workers = f"--workers={1 + kill % 2}"
        process = subprocess.Popen([*command, workers], start_new_session=True)
        while whole() < 2 * kill and process.poll() is None:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.1 if kill else 3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        reached.append(whole())
    assert not (out / "train.manifest.json").exists()
    print("shards that were whole after each kill:", reached)
    subprocess.run(command, check=True)
    assert len(examples(out)) == 300
    for path in sorted((tmp_path / "whole").rglob("*")):
        if path.is_file():
            assert (out / path.relative_to(tmp_path / "whole")).read_bytes() == (
                path.read_bytes()
            )
    names = {str(path.relative_to(out)) for path in out.rglob("*")}
    assert names == {
        str(path.relative_to(tmp_path / "whole"))
        for path in (tmp_path / "whole").rglob("*")
    }
    assert verify(str(out / "train.manifest.json"))["fault_count"] == 0


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path):
    images = sets.folder(tmp_path / "images", {"a": 300}, side=16)
    run = "import sys; from vit_scaling.commands.write_tfrecords import main; main()"
    command = [sys.executable, "-c", run, f"--source=folder:{images}"]
    command += [f"--output_dir={tmp_path / 'out'}", "--num_shards=300", "--workers=2"]
    process = subprocess.Popen(command)
    while not list(tmp_path.glob("out/*.tfrecord")):
        time.sleep(0.05)
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = children.read_text().split()
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if alive(pid)]


def test_several_processes_write_the_same_bytes(folder, tmp_path):
    one = write(Folder(str(folder)), tmp_path / "one")
    counts = []
    two = write(
        Folder(str(folder)),
        tmp_path / "two",
        workers=2,
        progress=lambda *numbers: counts.append(numbers),
    )
    assert one == two
    assert (counts[0], counts[-1]) == ((0, 17), (17, 17)) and counts == sorted(counts)


def test_a_finished_split_is_kept_and_another_is_not_overwritten(folder, tmp_path):
    first = write(Folder(str(folder)), tmp_path / "out")
    assert write(Folder(str(folder)), tmp_path / "out") == first
    (folder / "cat/0000.png").unlink()
    with pytest.raises(ValueError, match="already holds split 'train'"):
        write(Folder(str(folder)), tmp_path / "out")
    again = write(Folder(str(folder)), tmp_path / "out", overwrite=True, num_shards=2)
    assert again["records"] == first["records"] - 1
    assert len(list((tmp_path / "out").glob("*.tfrecord"))) == 2


def test_a_split_keeps_another_whose_name_starts_with_its_own(folder, tmp_path):
    out = tmp_path / "out"
    write(Folder(str(folder)), out, split="train-extra", num_shards=4)
    others = {p: p.read_bytes() for p in out.rglob("train-extra*")}
    write(Folder(str(folder)), out, num_shards=2)
    write(Folder(str(folder)), out, num_shards=3, overwrite=True)
    smaller = shard_writer.Settings(reencode="jpeg", quality=40)
    write(Folder(str(folder)), out, num_shards=3, overwrite=True, settings=smaller)
    # The hashes of keys of the shards of before, of other sizes, are gone too.
    assert len(list((out / "index").glob("train-0*.keys*"))) == 3
    assert {p: p.read_bytes() for p in out.rglob("train-extra*")} == others
    assert len(list(out.glob("train-0*.tfrecord"))) == 3  # The two of before are gone.
    assert verify(str(out / "train-extra.manifest.json"))["fault_count"] == 0


def test_classes_come_from_the_training_split(folder, tmp_path, caplog):
    write(Folder(str(folder)), tmp_path / "out")
    fewer = sets.folder(tmp_path / "fewer", {"emu": 2})
    write(Folder(str(fewer)), tmp_path / "out", split="test")
    assert "no image of 2 of the 3 classes (cat, dog)" in caplog.text
    for example in examples(tmp_path / "out", "test").values():
        assert list(feature_values(example, "image/class/label")) == [2]
    more = sets.folder(tmp_path / "more", {"emu": 1, "fox": 1})
    with pytest.raises(ValueError, match=r"are not in .*: 'fox' .*training first"):
        write(Folder(str(more)), tmp_path / "out", split="other")


def test_csv_lists_give_several_labels(folder, tmp_path):
    listing = folder / "list.csv"
    listing.write_text("path,labels\ncat/0000.png,cat;pet\ndog/0005.png,\n")
    manifest = write(CsvFile(str(listing)), tmp_path / "out")
    assert manifest["class_counts"] == {"cat": 1, "pet": 1}
    result = examples(tmp_path / "out")
    assert list(feature_values(result["cat/0000.png"], "image/class/label")) == [0, 1]
    listing.write_text("file,labels\nx,y\n")
    with pytest.raises(ValueError, match="columns `path` and `labels`"):
        CsvFile(str(listing)).entries()


def test_tars_are_read_in_place(folder, tmp_path):
    for name in ("cat", "dog"):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for file in sorted((folder / name).iterdir()):
                tar.add(file, file.name)
    write(TarFiles(str(tmp_path / "*.tar")), tmp_path / "out")
    result = examples(tmp_path / "out")
    assert len(result) == 14
    for key, example in result.items():
        path = folder / key
        assert feature_values(example, "image/encoded")[0] == path.read_bytes()
        assert (
            feature_values(example, "image/class/text")[0].decode() == key.split("/")[0]
        )
    with tarfile.open(tmp_path / "x.tar", "w:gz") as tar:
        tar.add(folder / "cat")
    with pytest.raises(ValueError, match="must be an uncompressed tar file"):
        TarFiles(str(tmp_path / "x.tar")).entries()


def test_a_finished_set_is_written_again(folder, tmp_path):
    write(Folder(str(folder)), tmp_path / "out")
    source = RecordImages(TFRecords(str(tmp_path / "out/train.manifest.json")))
    again = write(source, tmp_path / "again", num_shards=1)
    assert again["class_counts"] == {"cat": 5, "dog": 9, "emu": 3}
    before, after = examples(tmp_path / "out"), examples(tmp_path / "again")
    assert before == after


def test_repeated_keys_and_no_images_raise(tmp_path):
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
    first = tmp_path / "out" / shard_name("train", 0, 2)
    counts = collections.Counter(
        feature_values(tf.train.Example.FromString(data), "image/class/label")[0]
        for data in tf.data.TFRecordDataset(str(first)).as_numpy_iterator()
    )
    assert min(counts[0], counts[1]) >= 6  # 15 ± 3.5 standard deviations of 2.7.


def test_shards_are_of_bounded_size_whatever_the_source(folder, tmp_path):
    write(Folder(str(folder)), tmp_path / "one", num_shards=1)
    source = RecordImages(TFRecords(str(tmp_path / "one/train-*")))
    for number, images in enumerate((Folder(str(folder)), source)):
        manifest = write(
            images, tmp_path / f"{number}", num_shards=None, shard_bytes=4_000
        )
        sizes = [row["bytes"] for row in manifest["shards"]]
        assert len(sizes) > 2
        assert max(sizes) < 6_000  # Images of less than 1 kB, spread evenly.


def test_the_number_of_shards_lets_several_processes_write(tmp_path):
    images = sets.folder(tmp_path / "images", {"a": 130}, side=8)
    manifest = write(Folder(str(images)), tmp_path / "out", num_shards=None)
    assert [row["records"] for row in manifest["shards"]] == [65, 65]
