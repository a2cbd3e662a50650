"""From the text on a command line to a source of images."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.data import sets
from vit_scaling.data.tfds import TFDS
from vit_scaling.data.writing.digits import Digits
from vit_scaling.data.writing.image_files import CsvFile, Folder, TarFiles
from vit_scaling.data.writing.image_sources import parse_source
from vit_scaling.data.writing.record_images import RecordImages


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
    assert keys(num_images=5) < keys(num_images=12) < keys()
    assert keys(fraction=0.2) < keys(fraction=0.7)


@pytest.mark.parametrize("text", ["zip:x", "folder:", "digit", "csv", ""])
def test_other_forms_raise_with_the_known_ones(text):
    with pytest.raises(ValueError, match=r"`source` must be one of folder:PATH"):
        parse_source(text, split="train")


def test_subsets_need_an_existing_set():
    with pytest.raises(ValueError, match="a subset of a finished set"):
        parse_source("digits", split="train", fraction=0.5)
