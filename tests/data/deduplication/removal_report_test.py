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
from vit_scaling.data.deduplication.matching import Match
from vit_scaling.data.deduplication.removal_report import Removal

RESULT = {
    "records": 3,
    "removed": 2,
    "kept": 1,
    "unreadable": 0,
    "unreadable_against": 4,
    "thresholds": {"distance": 10, "likeness": 0.96},
    "removed_by_set": {"<test>": 1, "the training set itself": 1},
}


def made(path):
    images = [data for _, data in photos(3)]
    train = sets.shards(
        path / "train",
        [[sets.example(data, [0], f"k{n}") for n, data in enumerate(images)]],
    )
    test = sets.shards(path / "test", [[sets.example(images[2], [0], "t")]])
    gone = [Removal(2, 0, Match(0, 1, 1.0)), Removal(1, -1, Match(0, 9, 0.97))]
    return train, [test], gone


def test_pairs_stand_side_by_side_the_least_alike_first(tmp_path):
    page = removal_report.report(*made(tmp_path), RESULT)
    assert re.findall(r"(\d+) bits, ([\d.]+)", page) == [("9", "0.970"), ("1", "1.000")]
    pictures = re.findall(r"data:image/jpeg;base64,([^']+)'", page)
    assert len(pictures) == 4
    for text in pictures:
        with Image.open(io.BytesIO(base64.b64decode(text))) as image:
            assert image.size == (64, 64)
    # Of the second pair both are one picture.
    assert pictures[2] == pictures[3]
    assert pictures[0] != pictures[1]


def test_pictures_of_16_bits_are_not_shown_white(tmp_path):
    record = sets.example(sets.deep(sets.tile(0)), [0])
    page = removal_report._picture(sets.shards(tmp_path, [[record]]), 0)
    (text,) = re.findall(r"base64,([^']+)'", page)
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        shown = np.asarray(image)
    assert abs(shown.mean() - sets.tile(0).mean()) < 3


def test_the_page_tells_counts_and_thresholds(tmp_path):
    page = removal_report.report(*made(tmp_path), RESULT)
    assert "2 of 3 training images removed, 1 kept" in page
    assert "at most 10 bits apart, correlation at least 0.96" in page
    assert "&lt;test&gt;" in page  # Names of files are not markup.
    assert "nor did 4 evaluation images" in page
    assert "2 of 2; all are in removed.csv" in page


def test_the_list_has_every_removal(tmp_path):
    path = tmp_path / "removed.csv"
    removal_report.write_list(*made(tmp_path), str(path))
    lines = path.read_text().splitlines()
    assert lines[0] == (
        "file,record,key,like_file,like_record,like_key,distance,likeness"
    )
    assert [line.split(",")[2::3][:2] for line in lines[1:]] == [
        ["k2", "t"],
        ["k1", "k0"],
    ]
