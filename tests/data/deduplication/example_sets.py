"""Photographs, and a training set with copies planted in it, for these tests."""
# SPDX-License-Identifier: Apache-2.0

import pathlib

import numpy as np

from tests.data import sets
from vit_scaling.data.deduplication import planted_copies
from vit_scaling.data.tfrecords import TFRecords


def photos(count: int, side: int = 64) -> list[tuple[str, bytes]]:
    """(key, JPEG) of parts of photographs, without sky, which always looks alike."""
    tiles = (sets.tile(n, side) for n in range(105))
    detailed = [tile for tile in tiles if tile.std() > 30]
    assert len(detailed) >= count
    return [(f"{n}", sets.jpeg(detailed[n], 92)) for n in range(count)]


def planted(path: pathlib.Path) -> tuple[TFRecords, TFRecords]:
    """A training set and an evaluation set.

    The training set has 12 distinct images, copies of both evaluation images, a copy of
    one of the 12, and a record that is not an image.
    """
    images = [data for _, data in photos(14)]
    generator = np.random.default_rng(0)
    copies = [
        planted_copies.alter_image(images[0], "grey", generator),
        planted_copies.alter_image(images[1], "flipped", generator),
        images[7],
        b"no image",
    ]
    records = [
        sets.example(data, [n % 3], f"train/{n}")
        for n, data in enumerate([*images[2:], *copies])
    ]
    train = sets.shards(path / "train", [records[:7], records[7:]])
    (path / "train/classes.txt").write_text("ape\nbee\ncow\n")
    evaluation = [
        sets.example(data, [0], f"test/{n}") for n, data in enumerate(images[:2])
    ]
    return train, sets.shards(path / "test", [evaluation])


def removals(result):
    """All removals of a search, in order."""
    return [removal for found in result.removals.values() for removal in found]
