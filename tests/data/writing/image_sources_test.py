"""From the text on a command line to a source of images."""
# SPDX-License-Identifier: Apache-2.0

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from tests.data import sets
from vit_scaling.data.examples import Features
from vit_scaling.data.tfds import TFDS
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing.image_files import CsvFile, Folder
from vit_scaling.data.writing.image_sources import Digits, RecordImages, parse_source
from vit_scaling.data.writing.tar_files import TarFiles


def test_every_form_gives_its_source(tmp_path):
    images = sets.folder(tmp_path / "images", {"a": 1})
    assert parse_source(f"folder:{images}", split="train") == Folder(str(images))
    assert parse_source("csv:a:b.csv", split="train") == CsvFile("a:b.csv")
    assert parse_source("tar:/x/*.tar", split="train") == TarFiles("/x/*.tar")
    assert parse_source("digits", split="test") == Digits("test")


def test_tfds_takes_its_split_from_the_text_or_the_flag():
    one = parse_source("tfds:mnist", split="test", tfds_data_dir="/d")
    assert one == RecordImages(TFDS("mnist", "test", "/d"))
    other = parse_source("tfds:mnist:train[:10%]", split="small")
    assert other == RecordImages(TFDS("mnist", "train[:10%]"))


def test_subsets_of_a_finished_set_nest(tmp_path):
    pattern = sets.numbered(tmp_path, [30]).pattern

    def keys(**subset):
        source = parse_source(f"tfrecords:{pattern}", split="train", **subset)
        return {entry.key for entry in source.entries()}

    assert len(keys()) == 30
    assert len(keys(num_images=5)) == 5
    part = parse_source(f"tfrecords:{pattern}", split="train", num_images=5)
    assert part.listing.summarize()["reasons"] == {
        "outside the subset": {"count": 25, "first": []}
    }
    assert keys(num_images=5) < keys(num_images=12) < keys()
    assert keys(fraction=0.2) < keys(fraction=0.7)


@pytest.mark.parametrize("text", ["zip:x", "folder:", "digit", "csv", ""])
def test_other_forms_raise_with_the_known_ones(text):
    with pytest.raises(ValueError, match=r"`source` must be one of folder:PATH"):
        parse_source(text, split="train")


def test_subsets_need_an_existing_set():
    with pytest.raises(ValueError, match="a subset of a finished set"):
        parse_source("digits", split="train", fraction=0.5)


def test_digits_are_divided_into_train_and_test():
    train, test = (Digits(split).entries() for split in ("train", "test"))
    assert (len(train), len(test)) == (1438, 359)
    assert not {entry.key for entry in train} & {entry.key for entry in test}
    with pytest.raises(ValueError, match="must be one of train, test; received 'dev'"):
        Digits("dev")


def test_digits_are_enlarged_by_their_scale():
    source = pickle.loads(pickle.dumps(Digits("test", scale=3)))  # As for a worker.
    entry = source.entries()[0]
    with Image.open(io.BytesIO(source.read(entry))) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (24, 24)
    small = pixels[::3, ::3]
    np.testing.assert_array_equal(pixels, small.repeat(3, 0).repeat(3, 1))


def test_entries_have_keys_labels_and_sizes(tmp_path):
    records = [sets.example(b"image", [2, 0], "a"), sets.example(b"other!", [], "b")]
    source = RecordImages(sets.shards(tmp_path, [records[:1], records[1:]]))
    first, second = source.entries()
    assert (first.key, first.labels) == ("a", ("2", "0"))
    assert (second.key, second.labels) == ("b", ())
    # Shards of bounded size need to know: the whole record stands for the image.
    assert [e.size_bytes for e in (first, second)] == [len(r) for r in records]
    assert source.class_names() == ("0", "1", "2")
    assert source.read(second) == b"other!"
    sent = pickle.loads(pickle.dumps(source))  # A worker reads without a list.
    assert sent.read(first) == b"image"


def test_labels_as_stored_are_moved_by_the_offset(tmp_path):
    pattern = sets.shards(tmp_path, [[sets.example(b"x", [1, 3])]]).pattern
    source = RecordImages(TFRecords(pattern, Features(label_offset=-1)))
    assert source.entries()[0].labels == ("0", "2")


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_without_a_class_is_named(tmp_path, label):
    records = [sets.example(b"x", [n], f"{n}") for n in (0, 1, label)]
    source = sets.shards(tmp_path, [records[:1], records[1:]])
    (tmp_path / "classes.txt").write_text("ape\nbee\n")
    where = (
        rf"00001-of-00002\.tfrecord, record 1: labels must be .*received \[{label}\]"
    )
    with pytest.raises(ValueError, match=where):
        RecordImages(source).entries()


def test_a_negative_label_is_named_where_classes_have_no_names(tmp_path):
    source = sets.shards(tmp_path, [[sets.example(b"x", [n]) for n in (1, -1)]])
    with pytest.raises(ValueError, match=r"record 1: labels must be in 0…1 .*\[-1\]"):
        RecordImages(source).entries()


def test_records_that_cannot_be_written_again_are_named(tmp_path):
    for number, junk in enumerate([b"\x07garbage", without(b"image/class/label")]):
        source = sets.shards(tmp_path / f"{number}", [[sets.example(b"", [0]), junk]])
        with pytest.raises(ValueError, match=r"00000-of-00001\.tfrecord, record 1: "):
            RecordImages(source).entries()


def without(key):
    """An example without one of its features."""
    return sets.example(b"", [0]).replace(key, b"?" * len(key))


def test_a_set_without_keys_is_keyed_by_place(tmp_path):
    source = sets.numbered(tmp_path, [1, 2])
    keyless = TFRecords(source.pattern, Features(key="image/encoded"))
    assert [entry.key for entry in RecordImages(keyless).entries()] == [
        "train-00000-of-00002.tfrecord:0",
        "train-00001-of-00002.tfrecord:0",
        "train-00001-of-00002.tfrecord:1",
    ]
