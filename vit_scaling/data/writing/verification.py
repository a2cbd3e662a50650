"""Check shards against their manifest: files, checksums, records, labels, images."""
# SPDX-License-Identifier: Apache-2.0

import collections
import hashlib
import os
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from vit_scaling.data import record_framing, record_index
from vit_scaling.data.tfrecords import Features, TFRecords, read_manifest
from vit_scaling.data.writing.image_checks import UnusableImage, check_image
from vit_scaling.data.writing.tfrecord_source import parsed, read_shard, values


def verify(
    pattern: str,
    *,
    classes: int | None = None,
    max_pixels: int = 100_000_000,
    decode: bool = True,
    max_faults: int = 100,
    features: Features | None = None,
) -> dict[str, Any]:
    """Read every record of a set and list what is wrong.

    Args:
        pattern: A manifest, against which the files are held, or a glob.
        classes: Labels must be below it; None takes the number of class names, or
            checks only that labels are not negative.
        max_pixels: Larger images are faults.
        decode: Decode the images too.
        max_faults: How many are named; all are counted.
        features: Keys of the records; None is the writer's.

    Returns:
        `records`, `shards`, `fault_count`, and `faults` as lines of text.
    """
    source = TFRecords(pattern, features or Features())
    if classes is None and source.class_names:
        classes = len(source.class_names)
    check = _Checker(source, classes, max_pixels, decode)
    faults: list[str] = []
    count = 0
    for fault in check.run(pattern if pattern.endswith(".json") else None):
        count += 1
        if len(faults) < max_faults:
            faults.append(fault)
    return {
        "records": check.records,
        "shards": len(source.shards),
        "fault_count": count,
        "faults": faults,
    }


class _Checker:
    def __init__(
        self, source: TFRecords, classes: int | None, max_pixels: int, decode: bool
    ) -> None:
        self._source = source
        self._classes = classes
        self._max_pixels = max_pixels
        self._decode = decode
        self._keys: set[bytes] = set()
        self.class_counts: collections.Counter[int] = collections.Counter()
        self.records = 0

    def run(self, manifest_path: str | None) -> Iterator[str]:
        for path in self._source.missing:
            yield f"{path}: its name is missing among those of its set"
        manifest = read_manifest(manifest_path) if manifest_path else None
        rows = {row["file"]: row for row in (manifest or {"shards": []})["shards"]}
        for shard in self._source.shards:
            row = rows.get(os.path.basename(shard.path))
            if not tf.io.gfile.exists(shard.path):
                yield f"{shard.path}: the manifest names it, but it does not exist"
                continue
            yield from self._file(shard.path, row)
        if manifest:
            yield from self._counts(manifest)

    def _file(self, path: str, row: dict[str, Any] | None) -> Iterator[str]:
        size = int(tf.io.gfile.stat(path).length)
        if row and row["bytes"] != size:
            yield f"{path}: {size} bytes, but the manifest says {row['bytes']}"
        if row and _sha256(path) != row["sha256"]:
            yield f"{path}: its SHA-256 is not the manifest's"
        with record_index.open_file(path) as file:
            offsets, problem = record_framing.scan(file, size)
        count = len(offsets) - 1
        if problem:
            yield f"{path}, record {count}: {problem}"
        if row and row["records"] != count:
            yield f"{path}: {count} records, but the manifest says {row['records']}"
        for number, data in enumerate(read_shard(path, offsets[:-1].tolist())):
            self.records += 1
            fault = self._record(data)
            if fault:
                yield f"{path}, record {number}: {fault}"

    def _record(self, data: bytes | None) -> str | None:
        if data is None:
            return "its bytes fail their checksum"
        try:
            return self._example(parsed(data))
        except UnusableImage as error:
            return f"its image: {error}"
        except ValueError as error:
            return str(error)

    def _example(self, example: tf.train.Example) -> str | None:
        features = self._source.features
        labels = [n + features.label_offset for n in _labels(example, features.label)]
        self.class_counts.update(labels)
        last = float("inf") if self._classes is None else self._classes - 1
        wrong = [label for label in labels if not 0 <= label <= last]
        if wrong:
            return f"labels {wrong} are outside 0…{last}"
        image = values(example, features.image)[0]
        if self._decode:
            check_image(image, max_pixels=self._max_pixels)
        if features.key in example.features.feature:
            key = hashlib.blake2b(values(example, features.key)[0], digest_size=16)
            if key.digest() in self._keys:
                return f"its key {values(example, features.key)[0]!r} came before"
            self._keys.add(key.digest())
        return None

    def _counts(self, manifest: dict[str, Any]) -> Iterator[str]:
        for number, (name, count) in enumerate(manifest["class_counts"].items()):
            if self.class_counts[number] != count:
                yield (
                    f"class {name!r}: {self.class_counts[number]} images, but the "
                    f"manifest says {count}"
                )


def _labels(example: tf.train.Example, key: str) -> list[int]:
    feature = example.features.feature[key]
    if feature.WhichOneof("kind") not in (None, "int64_list"):
        raise ValueError(f"its feature {key!r} is not of type int64")
    return list(feature.int64_list.value)


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with record_index.open_file(path) as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
