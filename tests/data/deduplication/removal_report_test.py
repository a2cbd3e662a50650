"""The report of what was removed."""
# SPDX-License-Identifier: Apache-2.0

import base64
import io
import re

import numpy as np
from PIL import Image

from tests.data import sets
from tests.data.deduplication.example_sets import photos
from vit_scaling.data.deduplication import removal_report
from vit_scaling.data.deduplication.search import TRAINING_SET, Removal, Search

RESULT = {
    "records": 3,
    "removed": 2,
    "kept": 1,
    "unreadable": 0,
    "unreadable_against": 4,
    "thresholds": {"distance": 10, "likeness": 0.96},
    "removed_by_set": {"<test>": 1, "the training set itself": 1},
}


def example_removals(path):
    images = [data for _, data in photos(3)]
    train = sets.shards(
        path / "train",
        [[sets.example(data, [0], f"k{n}") for n, data in enumerate(images)]],
    )
    test = sets.shards(path / "test", [[sets.example(images[2], [0], "t")]])
    removals = [Removal(2, 0, 0, 1, 1.0), Removal(1, TRAINING_SET, 0, 9, 0.97)]
    return Search(train, [test], include_internal=True), removals


def write_page(path):
    file = path / "report.html"
    removal_report.write_report(str(file), *example_removals(path), RESULT)
    return file.read_text()


def test_pairs_are_side_by_side_the_least_alike_first(tmp_path):
    page = write_page(tmp_path)
    assert re.findall(r"(\d+) bits, ([\d.]+)", page) == [("9", "0.970"), ("1", "1.000")]
    images = re.findall(r'data:image/jpeg;base64,([^"]+)"', page)
    assert len(images) == 4
    for text in images:
        with Image.open(io.BytesIO(base64.b64decode(text))) as image:
            assert image.size == (64, 64)
    # Both images of the second pair are the same.
    assert images[2] == images[3]
    assert images[0] != images[1]


def test_images_of_16_bits_are_not_shown_white(tmp_path):
    record = sets.example(sets.deep(sets.tile(0)), [0])
    shown = removal_report._show_record(sets.shards(tmp_path, [[record]]), 0)
    with Image.open(io.BytesIO(base64.b64decode(shown["jpeg"]))) as image:
        pixels = np.asarray(image)
    assert abs(pixels.mean() - sets.tile(0).mean()) < 3


def test_the_page_shows_counts_and_thresholds(tmp_path):
    page = write_page(tmp_path)
    assert "2 of 3 training images removed, 1 kept" in page
    assert "at most 10 bits apart, correlation at least 0.96" in page
    assert "&lt;test&gt;" in page  # Names of files are not markup.
    assert "nor did 4 evaluation images" in page
    assert "2 of 2; all are in removed.csv" in page


def test_the_list_has_every_removal(tmp_path):
    assert removal_report.removal_list_header().splitlines() == [
        "file,record,key,like_file,like_record,like_key,distance,likeness"
    ]
    text = removal_report.format_removals(*example_removals(tmp_path))
    assert [line.split(",")[2::3][:2] for line in text.splitlines()] == [
        ["k2", "t"],
        ["k1", "k0"],
    ]
