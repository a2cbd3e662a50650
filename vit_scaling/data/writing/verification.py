"""Check shards and index files against their manifest, record by record."""
# SPDX-License-Identifier: Apache-2.0

import collections
import hashlib
import os
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from vit_scaling.data import record_files, sidecar_files, subsets
from vit_scaling.data.examples import Features, feature_values, parse_example
from vit_scaling.data.manifests import read_manifest
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing.image_checks import UnusableImage, check_image


def verify(
    pattern: str,
    *,
    classes: int | None = None,
    max_pixels: int = 100_000_000,
    decode: bool = True,
    max_faults: int = 100,
    features: Features | None = None,
) -> dict[str, Any]:
    """Read every record of a set and list the faults.

    Args:
        pattern: A manifest, against which the files are checked, or a glob.
        classes: Labels must be smaller; None takes the number of class names, or checks
            only that labels are not negative.
        max_pixels: Larger images are faults.
        decode: Whether to decode the images too.
        max_faults: Number of faults to describe; all are counted.
        features: Keys of the records; None is the writer's.

    Returns:
        `records`, `shards`, `fault_count`, and `faults` as lines of text.
    """
    source = TFRecords(pattern, features or Features())
    checker = _Checker(source, classes, max_pixels if decode else None)
    manifest = read_manifest(pattern) if pattern.endswith(".json") else None
    faults, count = [], 0
    for fault in checker.find_faults(manifest):
        count += 1
        if count <= max_faults:
            faults.append(fault)
    return {
        "records": checker.records,
        "shards": len(source.shards),
        "fault_count": count,
        "faults": faults,
    }


class _Checker:
    """Finds the faults of a set; counts its records and classes on the way.

    Args:
        source: The set.
        classes: Number of classes, or None.
        max_pixels: Bound of the images' size; None does not decode them.
    """

    def __init__(
        self, source: TFRecords, classes: int | None, max_pixels: int | None
    ) -> None:
        self._source, self._classes = source, classes
        self._max_pixels = max_pixels
        self._key_hashes: set[bytes] = set()
        self._class_counts: collections.Counter[int] = collections.Counter()
        self.records = 0

    def find_faults(self, manifest: dict[str, Any] | None) -> Iterator[str]:
        for path in self._source.missing:
            yield f"{path}: its name is missing among those of its set"
        rows = {row["file"]: row for row in manifest["shards"]} if manifest else {}
        for shard in self._source.shards:
            if tf.io.gfile.exists(shard.path):
                row = rows.get(os.path.basename(shard.path))
                yield from self._check_file(shard.path, row)
            else:
                yield f"{shard.path}: the manifest names it, but it does not exist"
        if manifest:
            yield from self._check_class_counts(manifest)

    def _check_file(self, path: str, row: dict[str, Any] | None) -> Iterator[str]:
        size = record_files.file_size(path)
        if row and row["bytes"] != size:
            yield f"{path}: {size} bytes, but the manifest says {row['bytes']}"
        if row and record_files.file_sha256(path) != row["sha256"]:
            yield f"{path}: its SHA-256 is not the manifest's"
        with record_files.open_file(path) as file:
            offsets, problem = record_files.scan_offsets(file, size)
        count = len(offsets) - 1
        if problem:
            yield f"{path}, record {count}: {problem}"
        if row and row["records"] != count:
            yield f"{path}: {count} records, but the manifest says {row['records']}"
        key_hashes = yield from self._check_records(path, offsets)
        if not problem and (not row or row["records"] == count):
            yield from _check_sidecar(path, sidecar_files.OFFSETS, offsets)
            if None not in key_hashes:
                kind = sidecar_files.key_hashes_kind(self._source.features.key, size)
                yield from _check_sidecar(path, kind, np.array(key_hashes, np.uint64))

    def _check_records(
        self, path: str, offsets: np.ndarray
    ) -> Generator[str, None, list[int | None]]:
        """Yield the records' faults; return the hashes of their keys."""
        classes, key_hashes = self._classes, []
        if classes is None:
            names = self._source.class_names_by_folder[os.path.dirname(path)]
            classes = len(names) if names else None
        payloads = record_files.read_payloads(path, offsets[:-1].tolist())
        for number, data in enumerate(payloads):
            self.records += 1
            fault = self._check_record(data, classes)
            if fault:
                yield f"{path}, record {number}: {fault}"
            key_hashes.append(self._hash_key(data))
        return key_hashes

    def _hash_key(self, data: bytes | None) -> int | None:
        try:
            example = parse_example(data or b"")
            return subsets.hash_key(
                feature_values(example, self._source.features.key)[0]
            )
        except (ValueError, TypeError, IndexError):
            return None

    def _check_record(self, data: bytes | None, classes: int | None) -> str | None:
        if data is None:
            return record_files.CHECKSUM_FAILS
        try:
            return self._check_example(parse_example(data), classes)
        except UnusableImage as error:
            return f"its image: {error}"
        except ValueError as error:
            return str(error)

    def _check_example(
        self, example: tf.train.Example, classes: int | None
    ) -> str | None:
        features = self._source.features
        label = example.features.feature[features.label]
        if label.WhichOneof("kind") not in (None, "int64_list"):
            return f"its feature {features.label!r} is not of type int64"
        labels = [n + features.label_offset for n in label.int64_list.value]
        self._class_counts.update(labels)
        last = float("inf") if classes is None else classes - 1
        wrong = [number for number in labels if not 0 <= number <= last]
        if wrong:
            return f"labels {wrong} are outside 0…{last}"
        image = feature_values(example, features.image)[0]
        if self._max_pixels is not None:
            check_image(image, max_pixels=self._max_pixels)
        if features.key in example.features.feature:
            key = feature_values(example, features.key)[0]
            key_hash = hashlib.blake2b(key, digest_size=16).digest()
            if key_hash in self._key_hashes:
                return f"its key {key!r} came before"
            self._key_hashes.add(key_hash)
        return None

    def _check_class_counts(self, manifest: dict[str, Any]) -> Iterator[str]:
        for number, (name, count) in enumerate(manifest["class_counts"].items()):
            if self._class_counts[number] != count:
                yield (
                    f"class {name!r}: {self._class_counts[number]} images, but the "
                    f"manifest says {count}"
                )


def _check_sidecar(shard: str, kind: str, expected: np.ndarray) -> Iterator[str]:
    """Yield a fault if an index file differs; readers make a missing one."""
    path = sidecar_files.sidecar_paths(shard, kind)[0]
    if not tf.io.gfile.exists(path):
        return
    array = sidecar_files.load_array(path)
    if array is None:
        yield f"{path}: the index file is damaged; remove it"
    elif not np.array_equal(array, expected):
        yield f"{path}: the index file is not that of the shard; remove it"
