"""Folders of classes, and the digits, as lists of images."""
# SPDX-License-Identifier: Apache-2.0

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from tests.data import sets
from vit_scaling.data.writing.image_entries import Digits, Folder


def test_a_folder_lists_its_images_by_class_at_any_depth(tmp_path):
    sets.folder(tmp_path, {"b": 2, "a": 1})
    deep = tmp_path / "a/x/y"
    deep.mkdir(parents=True)
    (deep / "Deep.JPG").write_bytes(b"12345")
    (tmp_path / "a/notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    source = Folder(str(tmp_path))
    assert source.class_names() == ("a", "b")
    found = source.entries()
    assert [entry.key for entry in found] == [
        "a/0002.png",
        "a/x/y/Deep.JPG",
        "b/0000.png",
        "b/0001.png",
    ]
    assert [entry.labels for entry in found] == [("a",), ("a",), ("b",), ("b",)]
    assert found[1].size_bytes == 5
    assert source.read(found[1]) == b"12345"


def test_a_folder_without_classes_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="one subfolder per class"):
        Folder(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="which is none"):
        Folder(str(tmp_path / "nowhere"))


def test_digits_part_into_train_and_test():
    train, test = (Digits(split).entries() for split in ("train", "test"))
    assert (len(train), len(test)) == (1438, 359)
    assert not {entry.key for entry in train} & {entry.key for entry in test}
    with pytest.raises(ValueError, match="must be train or test; received 'dev'"):
        Digits("dev")


def test_digits_are_repeated_by_their_scale():
    source = pickle.loads(pickle.dumps(Digits("test", scale=3)))  # As for a worker.
    entry = source.entries()[0]
    with Image.open(io.BytesIO(source.read(entry))) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (24, 24)
    small = pixels[::3, ::3]
    np.testing.assert_array_equal(pixels, small.repeat(3, 0).repeat(3, 1))
