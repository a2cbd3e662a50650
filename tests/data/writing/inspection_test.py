"""Counts and contact sheets of a set."""
# SPDX-License-Identifier: Apache-2.0

import base64
import io

import numpy as np
from PIL import Image

from tests.data import sets
from tests.data.bad_records_test import bomb
from vit_scaling.data.record_index import RecordIndex
from vit_scaling.data.writing import inspection
from vit_scaling.data.writing.inspection import (
    compute_statistics,
    draw_sheet,
    write_sheets,
)


def make_set(path):
    """Four pictures of different kinds in two shards; one is broken."""
    grey = sets.tile(1)[..., 0]
    records = [
        sets.example(sets.jpeg(sets.tile(0)), [0, 2], "a"),
        sets.example(sets.encoded(grey[:12], "PNG"), [2], "b"),
        sets.example(sets.encoded(sets.tile(2), "PNG"), [], "c"),
        sets.example(b"broken", [1], "d"),
    ]
    source = sets.shards(path, [records[:3], records[3:]])
    (path / "classes.txt").write_text("ape\nbee\ncow\n")
    return source


def test_records_classes_formats_and_sizes_are_counted(tmp_path):
    result = compute_statistics(make_set(tmp_path))
    assert (result["records"], result["shards"], result["sampled"]) == (4, 2, 4)
    assert result["class_counts"] == {"ape": 1, "bee": 1, "cow": 2}
    assert result["labels_per_image"] == {0: 1, 1: 2, 2: 1}
    assert result["formats"] == {
        "JPEG, 3 channels": 1,
        "PNG, 1 channels": 1,
        "PNG, 3 channels": 1,
        "unusable: does not decode (no known image format)": 1,
    }
    assert result["sizes"]["height"] == {"min": 12, "median": 24, "max": 24}
    (named,) = result["unusable"]
    assert "train-00001-of-00002.tfrecord, record 0: does not decode" in named
    files = [path.stat().st_size for path in tmp_path.glob("train-*")]
    assert result["bytes"] == sum(files)


def test_exact_copies_are_counted(tmp_path):
    same = sets.jpeg(sets.tile(0))
    records = [sets.example(same, [0], name) for name in "abc"]
    records.append(sets.example(sets.jpeg(sets.tile(1)), [0], "d"))
    assert compute_statistics(sets.shards(tmp_path, [records]))["duplicates"] == 2


def test_the_page_shows_counts_and_sheets(tmp_path):
    source = make_set(tmp_path)
    result = compute_statistics(source)
    sheets = write_sheets(
        source, output_dir=str(tmp_path), images=3, image_size=16, seed=0
    )
    inspection.write_page(str(tmp_path / "index.html"), result, sheets)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "4 records in 2 shards" in page and "<td>cow</td>" in page
    assert "does not decode" in page
    for sheet in sheets:
        with open(sheet, "rb") as file:
            assert base64.b64encode(file.read()).decode() in page


def test_a_sample_is_drawn_by_its_seed(tmp_path):
    source = sets.numbered(tmp_path, [50])
    draws = [compute_statistics(source, sample=5, seed=seed) for seed in (0, 0, 1)]
    classes = [set(draw["class_counts"]) for draw in draws]
    assert draws[0]["sampled"] == 5
    assert classes[0] == classes[1] != classes[2]


def test_bombs_and_damaged_records_are_named_and_the_others_counted(tmp_path):
    good = sets.example(sets.jpeg(sets.tile(0)), [2])
    records = [good, sets.example(bomb(), [1]), b"\x07garbage", without_image()]
    source = sets.shards(tmp_path, [records])
    result = compute_statistics(source)
    reasons = ["more than 100000000 pixels", "no tf.train.Example", "no feature 'image"]
    for number, (text, reason) in enumerate(
        zip(result["unusable"], reasons, strict=True), 1
    ):
        assert f"train-00000-of-00001.tfrecord, record {number}: " in text
        assert reason in text
    assert result["formats"]["JPEG, 3 channels"] == 1
    paths = write_sheets(
        source, output_dir=str(tmp_path / "out"), images=4, image_size=16, seed=0
    )
    assert len(paths) == 2


def without_image():
    return sets.example(b"", [1]).replace(b"image/encoded", b"image/nothing")


def test_the_largest_label_is_that_of_a_sample(tmp_path, monkeypatch):
    source = sets.numbered(tmp_path, [30])
    monkeypatch.setattr(inspection, "_LABELS_SAMPLED", 5)
    numbers = inspection._draw_records(source.index(), 5, 1)
    read = []
    read_record = RecordIndex.read_record
    monkeypatch.setattr(
        RecordIndex, "read_record", lambda i, n: read.append(n) or read_record(i, n)
    )
    assert inspection._largest_label(source, 1) == max(numbers)
    assert read == numbers


def test_sheets_show_the_same_images_entire_and_augmented(tmp_path):
    source = make_set(tmp_path)
    paths = write_sheets(
        source, output_dir=str(tmp_path / "out"), images=4, image_size=32, seed=0
    )
    complete, augmented = (np.asarray(Image.open(path)) for path in paths)
    assert complete.shape == augmented.shape
    assert not np.array_equal(complete, augmented)


def test_a_sheet_has_every_image_in_its_cell():
    images = np.stack([np.full((16, 16, 3), 50 * n, np.uint8) for n in range(5)])
    encoded = draw_sheet(images, ["a very long label"] * 5)
    sheet = np.asarray(Image.open(io.BytesIO(encoded)))
    cells = [
        sheet[2 + 34 * row : 18 + 34 * row, 2 + 20 * column : 18 + 20 * column]
        for row in range(2)
        for column in range(3)
    ]
    for cell, image in zip(cells, images, strict=False):
        np.testing.assert_array_equal(cell, image)
