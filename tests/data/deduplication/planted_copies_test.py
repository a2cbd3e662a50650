"""Planted copies: what each alteration does, and what is counted."""
# SPDX-License-Identifier: Apache-2.0

import io

import numpy as np
import pytest
from PIL import Image

from tests.data import sets
from tests.data.deduplication.example_sets import photos
from vit_scaling.data.deduplication import planted_copies
from vit_scaling.data.deduplication.matching import Thresholds

PHOTO = sets.photograph()[:200, :300]


def alter(kind, seed=0):
    encoded = sets.encoded(PHOTO, "PNG")
    data = planted_copies.alter_image(encoded, kind, np.random.default_rng(seed))
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        return np.asarray(image.convert("RGB"), float)


def test_reencoding_keeps_the_image():
    assert np.abs(alter("re-encoded") - PHOTO).mean() < 6


@pytest.mark.parametrize("seed", range(5))
def test_sizes_stay_between_a_third_and_the_original(seed):
    height, width, _ = alter("resized", seed).shape
    assert 60 <= height <= 200
    assert width / height == pytest.approx(1.5, rel=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_crops_keep_nine_tenths_of_each_side(seed):
    height, width, _ = alter("cropped", seed).shape
    assert 180 <= height <= 200
    assert 270 <= width <= 300


def test_flips_borders_captions_and_tones_do_what_their_names_say():
    assert np.abs(alter("flipped") - PHOTO[:, ::-1]).mean() < 6
    bordered = alter("border")
    edge = (bordered.shape[0] - 200) // 2
    assert 6 <= edge <= 20
    inside = bordered[edge:-edge, edge:-edge]
    assert inside.shape == PHOTO.shape
    assert np.abs(inside - PHOTO).mean() < 8
    captioned = alter("caption")
    assert 216 <= captioned.shape[0] <= 230
    assert np.abs(captioned[:200] - PHOTO).mean() < 6
    assert captioned[202:].max() > 200  # Text on white.
    toned = alter("brighter or darker")
    assert np.corrcoef(toned.ravel(), PHOTO.ravel())[0, 1] > 0.95
    assert 0.75 < toned.mean() / PHOTO.mean() < 1.25
    grey = alter("grey")
    assert np.ptp(grey, axis=-1).max() == 0
    written = alter("text over it")
    changed = np.abs(written - PHOTO).max(-1) > 60
    assert 0.001 < changed.mean() < 0.1


def test_transparency_becomes_white():
    clear = np.zeros((20, 20, 4), np.uint8)
    data = planted_copies.alter_image(
        sets.encoded(clear, "PNG"), "re-encoded", np.random.default_rng(0)
    )
    with Image.open(io.BytesIO(data)) as image:
        assert np.asarray(image).min() > 250


def test_other_removed_images_are_listed():
    images = photos(20)
    doubled = [*images, *((f"again {key}", data) for key, data in images)]
    result = planted_copies.measure(
        doubled, copies=len(planted_copies.ALTERATIONS), thresholds=Thresholds()
    )
    assert result["others"]
    hits = sum(row["found"] for row in result["recall"].values())
    assert result["precision"]["found"] == hits
    assert result["precision"]["of"] == hits + len(result["others"])
    for key, like, *_ in result["others"]:
        assert key.removeprefix("again ") == like.removeprefix("again ")


def test_links_are_not_read(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/a.PNG").write_bytes(b"1")
    (tmp_path / "b.txt").write_bytes(b"2")
    (tmp_path / "c.jpg").symlink_to(tmp_path / "deep/a.PNG")
    found = planted_copies.read_images(str(tmp_path))
    assert found == [(str(tmp_path / "deep/a.PNG"), b"1")]


def test_intervals_contain_the_fraction():
    def interval(found, of):
        estimate = planted_copies.estimate_fraction(found, of)
        return estimate["low"], estimate["high"]

    low, high = interval(1980, 2000)
    assert low < 0.99 < high
    assert interval(0, 0) == (0.0, 1.0)
    assert interval(5, 5)[1] == 1.0
