"""A folder of images becomes cached sets, once."""
# SPDX-License-Identifier: Apache-2.0

import pathlib

import pytest

from tests.data import sets
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing import folder_sets


def records(pattern):
    return TFRecords(pattern).index().num_records


def test_splits_are_written_once_and_described(tmp_path):
    sets.folder(tmp_path / "images/train", {"cat": 4, "dog": 6}, side=24)
    sets.folder(tmp_path / "images/val", {"cat": 1, "dog": 2}, side=24)
    calls = []

    def progress(split):
        return lambda done, total: calls.append((split, done, total))

    options = {"cache": tmp_path / "cache", "progress": progress}
    found = folder_sets.write_folder(str(tmp_path / "images"), **options)
    assert (found.classes, found.train_images, found.median_side) == (2, 10, 24)
    assert found.eval_name == "val"
    assert records(found.train_pattern) == 10 and records(found.eval_pattern) == 3
    assert TFRecords(found.eval_pattern).class_names == ("cat", "dog")
    assert {split for split, *_ in calls} == {"train", "val"}
    written = {
        p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.tfrecord")
    }
    assert folder_sets.write_folder(str(tmp_path / "images"), **options) == found
    assert written == {p: p.stat().st_mtime_ns for p in written}


def test_changed_images_get_another_cache(tmp_path):
    images = sets.folder(tmp_path / "images", {"cat": 3, "dog": 3})
    first = folder_sets.write_folder(str(images), cache=tmp_path / "cache")
    assert first.eval_pattern is None and first.train_images == 6
    next((images / "cat").iterdir()).unlink()
    second = folder_sets.write_folder(str(images), cache=tmp_path / "cache")
    assert second.train_images == 5 and second.train_pattern != first.train_pattern
    assert records(first.train_pattern) == 6


def test_a_class_without_training_images_is_named(tmp_path):
    sets.folder(tmp_path / "images/train", {"cat": 1, "dog": 1})
    sets.folder(tmp_path / "images/test", {"cat": 1, "fox": 1})
    with pytest.raises(ValueError, match="'fox'"):
        folder_sets.write_folder(str(tmp_path / "images"), cache=tmp_path / "cache")


def test_the_cache_is_in_the_home_folder_unless_a_variable_says_where(monkeypatch):
    monkeypatch.delenv(folder_sets.CACHE_VARIABLE, raising=False)
    expected = pathlib.Path.home() / ".cache" / "vit_scaling"
    assert folder_sets.default_cache() == expected
    monkeypatch.setenv(folder_sets.CACHE_VARIABLE, "/data/cache")
    assert folder_sets.default_cache() == pathlib.Path("/data/cache")


def test_images_that_cannot_be_read_are_left_out(tmp_path):
    images = sets.folder(tmp_path / "images", {"cat": 2, "dog": 2}, side=24)
    (images / "cat" / "0.jpg").write_bytes(b"<html>404</html>")
    options = {"cache": tmp_path / "cache"}
    found = folder_sets.write_folder(str(images), **options)
    assert (found.train_images, found.median_side) == (4, 24)
    for path in images.rglob("*.*"):
        path.write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match=r"all 5 are left out.*no known image format"):
        folder_sets.write_folder(str(images), **options)


def write_table(tmp_path, *labels):
    images = sets.folder(tmp_path / "images", {"any": 4})
    lines = [
        f"images/any/{path.name},{label}"
        for path, label in zip(sorted((images / "any").iterdir()), labels, strict=True)
    ]
    table = tmp_path / "images.csv"
    table.write_text("\n".join(["path,labels", *lines]), encoding="utf-8")
    return str(table)


def test_a_table_is_a_training_set_and_other_labels_get_another_cache(tmp_path):
    table = write_table(tmp_path, "cat", "dog", "dog", "dog")
    first = folder_sets.write_folder(table, cache=tmp_path / "cache")
    assert (first.classes, first.train_images, first.eval_pattern) == (2, 4, None)
    assert TFRecords(first.train_pattern).class_names == ("cat", "dog")
    pathlib.Path(table).write_text(
        pathlib.Path(table).read_text(encoding="utf-8").replace("cat", "fox"),
        encoding="utf-8",
    )
    second = folder_sets.write_folder(table, cache=tmp_path / "cache")
    assert TFRecords(second.train_pattern).class_names == ("dog", "fox")


def test_an_image_with_several_labels_is_named(tmp_path):
    table = write_table(tmp_path, "cat", "dog", "cat;dog", "dog")
    with pytest.raises(ValueError, match=r"one label; '.*2\..*' has 2"):
        folder_sets.write_folder(table, cache=tmp_path / "cache")


@pytest.mark.parametrize("name", ["photos", "photos.csv"])
def test_a_folder_that_is_missing_is_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"`folder` must be .*/{name}"):
        folder_sets.write_folder(str(tmp_path / name), cache=tmp_path / "cache")


def test_a_folder_of_tfrecords_is_no_folder_of_images(tmp_path):
    (tmp_path / "train-00000-of-00001.tfrecord").touch()
    with pytest.raises(ValueError, match="has TFRecords, no images"):
        folder_sets.write_folder(str(tmp_path), cache=tmp_path / "cache")
