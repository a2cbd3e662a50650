"""Small sets of real images for the tests of data."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import io
import json
import pathlib
from collections.abc import Sequence

import numpy as np
import skimage.data
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from vit_scaling.data import sidecar_files
from vit_scaling.data.examples import Features
from vit_scaling.data.tfrecords import TFRecords, shard_name


def photograph(number: int = 0) -> np.ndarray:
    """One of three photographs, uint8 (height, width, 3)."""
    if number == 2:
        return skimage.data.astronaut()
    return load_sample_images().images[number]


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    return encoded(pixels, "JPEG", quality=quality)


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def deep(pixels: np.ndarray, kind: str = "PNG", type_: type = np.uint16) -> bytes:
    """A picture's brightness as 16-bit grey: its upper byte, and noise below it."""
    upper = pixels.mean(-1).astype(type_) * 256
    low = np.random.default_rng(0).integers(256, size=upper.shape).astype(type_)
    return encoded(upper + low, kind)


def tile(number: int, side: int = 24) -> np.ndarray:
    """A part of a photograph that no other number gives."""
    pixels = photograph(number % 2)
    rows, columns = (size // side for size in pixels.shape[:2])
    top, left = divmod(number // 2, columns)
    assert top < rows
    return pixels[top * side : (top + 1) * side, left * side : (left + 1) * side]


def folder(path: pathlib.Path, classes: dict[str, int], side: int = 24) -> pathlib.Path:
    """A folder of PNGs, so many of each class; pictures differ."""
    number = 0
    for name, count in classes.items():
        (path / name).mkdir(parents=True)
        for _ in range(count):
            file = path / name / f"{number:04d}.png"
            file.write_bytes(encoded(tile(number, side), "PNG"))
            number += 1
    return path


def example(image: bytes, labels: list[int], key: str = "k", **more: bytes) -> bytes:
    feature = {
        "image/encoded": _bytes(image),
        "image/class/label": tf.train.Feature(
            int64_list=tf.train.Int64List(value=labels)
        ),
        "image/filename": _bytes(key.encode()),
        **{name: _bytes(value) for name, value in more.items()},
    }
    proto = tf.train.Example(features=tf.train.Features(feature=feature))
    return proto.SerializeToString()


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def shards(path: pathlib.Path, contents: list[list[bytes]]) -> TFRecords:
    """TFRecord files with these records, as another program would write them."""
    path.mkdir(parents=True, exist_ok=True)
    for number, records in enumerate(contents):
        name = path / f"train-{number:05d}-of-{len(contents):05d}.tfrecord"
        with tf.io.TFRecordWriter(str(name)) as writer:
            for record in records:
                writer.write(record)
    return TFRecords(str(path / "train-*"))


def numbered(path: pathlib.Path, counts: list[int]) -> TFRecords:
    """Shards of 1×1 images whose label is the record's number in the set.

    Shards without records are meant: a manifest says so.
    """
    white = encoded(np.full((1, 1, 3), 255, np.uint8), "PNG")
    done = 0
    contents = []
    for count in counts:
        numbers = range(done, done + count)
        contents.append([example(white, [n], f"key/{n}") for n in numbers])
        done += count
    source = shards(path, contents)
    rows = [
        {
            "file": pathlib.Path(shard.path).name,
            "records": count,
            "bytes": pathlib.Path(shard.path).stat().st_size,
        }
        for shard, count in zip(source.shards, counts, strict=True)
    ]
    (path / "train.manifest.json").write_text(json.dumps({"shards": rows}))
    return TFRecords(source.pattern)


def hashed(path: pathlib.Path, hashes: Sequence[np.ndarray]) -> TFRecords:
    """Shards of nothing but holes, with index files: keys have the given hashes."""
    path.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, values in enumerate(hashes):
        name = shard_name("train", number, len(hashes))
        offsets = np.arange(len(values) + 1, dtype=np.uint64) * 20
        with (path / name).open("wb") as file:
            file.truncate(int(offsets[-1]))
        kind = sidecar_files.key_hashes_kind(Features().key, int(offsets[-1]))
        sidecar_files.store_sidecar(str(path / name), kind, values)
        sidecar_files.store_sidecar(str(path / name), sidecar_files.OFFSETS, offsets)
        rows.append({"file": name, "records": len(values), "bytes": int(offsets[-1])})
    manifest = path / "train.manifest.json"
    manifest.write_text(json.dumps({"shards": rows}))
    return TFRecords(str(manifest))


@dataclasses.dataclass
class Chosen:
    """Records of a set by their numbers, as a `Selection`."""

    starts: np.ndarray
    numbers: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        return np.diff(np.searchsorted(self.numbers, self.starts))

    def rows(self, shard: int) -> np.ndarray:
        first, end = self.starts[shard : shard + 2]
        is_in = (self.numbers >= first) & (self.numbers < end)
        return self.numbers[is_in] - first
