"""Write one shard: check its images, make records, and store them with sidecars."""
# SPDX-License-Identifier: Apache-2.0

import collections
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from vit_scaling.data import sidecar_files, subsets
from vit_scaling.data.examples import Features
from vit_scaling.data.record_files import FRAME_BYTES, file_sha256, file_size
from vit_scaling.data.sidecar_files import INDEX_FOLDER
from vit_scaling.data.writing.image_checks import (
    CheckedImage,
    UnusableImage,
    prepare_image,
)
from vit_scaling.data.writing.image_entries import (
    Entry,
    EntrySource,
    StoredEntries,
)
from vit_scaling.io_files import atomic_file, read_json, write_json
from vit_scaling.naming import check_known

REPORT_SUFFIX = ".report.json"


class ShardFile:
    """A shard that is being written; `open_shard` makes it.

    Args:
        path: Final path of the shard.
        writer: Writes the temporary file.
    """

    def __init__(self, path: str, writer: tf.io.TFRecordWriter) -> None:
        self._path, self._writer = path, writer
        self.offsets = [0]
        self.key_hashes: list[int] = []
        self.sha256 = ""

    def write(self, record: bytes, key: bytes | None) -> None:
        """Append a record; None means that it has no key."""
        self._writer.write(record)
        self.offsets.append(self.offsets[-1] + FRAME_BYTES + len(record))
        if key is not None:
            self.key_hashes.append(subsets.hash_key(key))

    def manifest_row(self) -> dict[str, Any]:
        """Return the shard's row of the manifest, once it is complete."""
        return {
            "file": os.path.basename(self._path),
            "records": len(self.offsets) - 1,
            "bytes": self.offsets[-1],
            "sha256": self.sha256,
        }


@contextlib.contextmanager
def open_shard(path: str, features: Features) -> Iterator[ShardFile]:
    """Context manager: a `ShardFile` that becomes `path` if the block succeeds.

    Hashes of the keys are stored if every record has a key that is not the image.
    """
    with atomic_file(path) as temporary:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            shard = ShardFile(path, writer)
            yield shard
        shard.sha256 = file_sha256(str(temporary))
        offsets = np.array(shard.offsets, np.uint64)
        sidecar_files.store_sidecar(path, sidecar_files.OFFSETS, offsets)
        has_keys = len(shard.key_hashes) == len(offsets) - 1
        if has_keys and features.key != features.image:
            kind = sidecar_files.key_hashes_kind(features.key, shard.offsets[-1])
            hashes = np.array(shard.key_hashes, np.uint64)
            sidecar_files.store_sidecar(path, kind, hashes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How images become records.

    Args:
        max_pixels: Images with more pixels are left out.
        min_side: Images with a smaller side are left out.
        reencode: "jpeg" or "png" re-encodes every image as RGB; None keeps its bytes.
        quality: JPEG quality of re-encoded images.
        shuffle: Spread the images over the shards by a hash of their keys; False keeps
            the source's order.
        features: Keys of the examples.
    """

    max_pixels: int = 100_000_000
    min_side: int = 1
    reencode: str | None = None
    quality: int = 95
    shuffle: bool = True
    features: Features = dataclasses.field(default_factory=Features)

    def __post_init__(self) -> None:
        if self.reencode is not None:
            check_known("reencode", self.reencode, ("jpeg", "png"))


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """Everything a process needs to write one shard.

    Args:
        source: Reads the images.
        entries: The shard's images, in a file.
        path: The file to write.
        classes: Class names in index order.
        settings: How images become records.
        plan: Fingerprint of the whole split, to recognise shards of an earlier run.
    """

    source: EntrySource
    entries: StoredEntries
    path: str
    classes: tuple[str, ...]
    settings: Settings
    plan: str

    @property
    def report_path(self) -> str:
        """Path of the finished shard's report, kept until the manifest is written."""
        folder, name = os.path.split(self.path)
        return os.path.join(folder, INDEX_FOLDER, f"{name}{REPORT_SUFFIX}")

    def read_report(self) -> dict[str, Any] | None:
        """Return the shard's report if it exists and is of the same plan."""
        try:
            report: dict[str, Any] = read_json(self.report_path)
        except (OSError, ValueError):
            return None
        return report if report["plan"] == self.plan else None

    def is_finished(self, row: Mapping[str, Any] | None = None) -> bool:
        """Whether the shard has the size in its row, and its index files exist.

        Args:
            row: The shard's row of the manifest; None takes its report.
        """
        row = row or self.read_report()
        if row is None:
            return False
        size, features = row["bytes"], self.settings.features
        kinds = [sidecar_files.OFFSETS]
        if features.key != features.image:
            kinds.append(sidecar_files.key_hashes_kind(features.key, size))
        sidecars = [sidecar_files.sidecar_paths(self.path, kind)[0] for kind in kinds]
        try:
            has_size = file_size(self.path) == size
        except FileNotFoundError:
            return False
        return has_size and all(map(tf.io.gfile.exists, sidecars))


def write_shard(task: ShardTask, on_image: Callable[[], None] = lambda: None) -> None:
    """Write one shard, its sidecar files and its report.

    Args:
        task: The shard.
        on_image: Called once for each image.
    """
    class_numbers = {name: number for number, name in enumerate(task.classes)}
    settings, left_out, converted = task.settings, [], 0
    class_counts: collections.Counter[str] = collections.Counter()
    with open_shard(task.path, settings.features) as shard:
        for entry in task.entries:
            on_image()
            try:
                image = prepare_image(
                    task.source.read(entry),
                    max_pixels=settings.max_pixels,
                    min_side=settings.min_side,
                    reencode=settings.reencode,
                    quality=settings.quality,
                )
            except (UnusableImage, OSError) as error:
                left_out.append([entry.key, str(error)])
                continue
            record = make_example(image, entry, class_numbers, settings.features)
            shard.write(record, entry.key.encode())
            class_counts.update(entry.labels)
            converted += image.converted
    report = {
        **shard.manifest_row(),
        "class_counts": dict(class_counts),
        "left_out": left_out,
        "converted": converted,
        "plan": task.plan,
    }
    write_json(task.report_path, report)


def make_example(
    image: CheckedImage, entry: Entry, class_numbers: dict[str, int], features: Features
) -> bytes:
    """Return an image as a serialized `tf.train.Example` with ImageNet's usual keys."""
    labels = [class_numbers[name] - features.label_offset for name in entry.labels]
    values = {
        "image/height": _ints(image.height),
        "image/width": _ints(image.width),
        "image/channels": _ints(image.channels),
        features.label: _ints(*labels),
        features.image: _bytes(image.encoded),
        "image/format": _bytes(image.format.lower().encode()),
        "image/class/text": _bytes(*(name.encode() for name in entry.labels)),
    }
    if features.key != features.image:
        values[features.key] = _bytes(entry.key.encode())
    example = tf.train.Example(features=tf.train.Features(feature=values))
    return example.SerializeToString(deterministic=True)


def _ints(*values: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _bytes(*values: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
