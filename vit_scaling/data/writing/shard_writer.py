"""Write images into TFRecord shards: verified, parallel, resumable, listed."""
# SPDX-License-Identifier: Apache-2.0

import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vit_scaling.data import files, record_framing, record_index, subsets
from vit_scaling.data.tfrecords import Features
from vit_scaling.data.writing.class_names import class_names
from vit_scaling.data.writing.image_checks import (
    CheckedImage,
    UnusableImage,
    check_image,
)
from vit_scaling.data.writing.image_entries import Entry, EntrySource

FORMAT_VERSION = 1
NAMED_LEFT_OUT = 1000  # The manifest names so many images; it counts all.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How images become records.

    Args:
        max_pixels: Larger images are left out.
        min_side: Images with a smaller side are left out.
        reencode: "jpeg" or "png" writes each image anew as RGB; None keeps its bytes.
        quality: Of re-encoded JPEGs.
        shuffle: Spread the images over the shards by a hash of their keys; off keeps
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
        if self.reencode not in (None, "jpeg", "png"):
            raise ValueError(
                f"`reencode` must be jpeg, png or None; received {self.reencode!r}."
            )


def shard_name(split: str, number: int, count: int) -> str:
    """Return a shard's file name.

    >>> shard_name("train", 3, 16)
    'train-00003-of-00016.tfrecord'
    """
    return files.numbered(split, number, count, ".tfrecord")


def manifest_path(folder: str, split: str) -> str:
    """Return where the manifest of a split lies."""
    return os.path.join(folder, f"{split}.manifest.json")


def write_tfrecords(
    source: EntrySource,
    *,
    output_dir: str,
    split: str,
    num_shards: int | None = None,
    shard_bytes: int = 200 * 2**20,
    settings: Settings | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    run_elsewhere: Callable[[list["ShardTask"]], None] | None = None,
) -> dict[str, Any]:
    """Write a split and return its manifest, which also lies in the folder.

    A shard is written under another name and renamed when it is whole, so a run that is
    killed goes on behind the last whole shard, and no image is lost or doubled.

    Args:
        source: The images.
        output_dir: Folder of the set. `classes.txt` there, if it exists, gives the
            class indices (the training split's, written first); else it is made.
        split: Name of the split: begins the shards' names.
        num_shards: How many; None makes shards of about `shard_bytes`.
        shard_bytes: Wanted size of a shard when `num_shards` is None.
        settings: How images become records.
        workers: Processes; None is one per core; 1 writes in this process.
        overwrite: Write a finished split again.
        progress: Called with images done and images in all.
        run_elsewhere: Writes the shards in another way first (see beam.py).

    Raises:
        ValueError: A class is not in `classes.txt`; there are no images; two have one
            key; or the split exists, made from something else, and `overwrite` is off.
    """
    settings = settings or Settings()
    os.makedirs(os.path.join(output_dir, record_index.INDEX_FOLDER), exist_ok=True)
    entries = _ordered(source.entries(), settings.shuffle)
    classes = class_names(source, entries, output_dir, split)
    count = num_shards or max(1, -(-sum(e.size_bytes for e in entries) // shard_bytes))
    plan = _fingerprint(entries, classes, count, settings)
    done = _finished(output_dir, split, plan, overwrite)
    if done is not None:
        return done
    tasks = [
        ShardTask(
            source,
            tuple(entries[len(entries) * i // count : len(entries) * (i + 1) // count]),
            os.path.join(output_dir, shard_name(split, i, count)),
            classes,
            settings,
            plan,
        )
        for i in range(count)
    ]
    if run_elsewhere:
        run_elsewhere(tasks)
    reports = _run(tasks, workers, progress)
    _remove_others(output_dir, split, [task.path for task in tasks])
    manifest = _manifest(split, classes, settings, plan, reports)
    files.write_json(manifest_path(output_dir, split), manifest)
    for task in tasks:
        os.remove(task.report_path)
    return manifest


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """What one shard is to hold; a process writes it whole."""

    source: EntrySource
    entries: tuple[Entry, ...]
    path: str
    classes: tuple[str, ...]
    settings: Settings
    plan: str

    @property
    def report_path(self) -> str:
        """Where the report of the finished shard lies until the manifest is written."""
        folder, name = os.path.split(self.path)
        return os.path.join(folder, record_index.INDEX_FOLDER, f"{name}.report.json")

    def finished(self) -> dict[str, Any] | None:
        """Return the report of the shard if it is whole and of this plan."""
        try:
            with open(self.report_path, encoding="utf-8") as file:
                report = json.load(file)
            whole = os.path.getsize(self.path) == report["bytes"]
        except (OSError, ValueError):
            return None
        return report if whole and report["plan"] == self.plan else None


def write_shard(task: ShardTask) -> dict[str, Any]:
    """Write one shard, its index files and its report; return the report."""
    # Another process may be at this shard still, left over from a run that was killed.
    part = f"{task.path}.{uuid.uuid4().hex}.part"
    numbers = {name: number for number, name in enumerate(task.classes)}
    offsets, hashes, left_out = [0], [], []
    class_counts: collections.Counter[str] = collections.Counter()
    with tf.io.TFRecordWriter(part) as writer:
        for entry in task.entries:
            try:
                image = _checked(task, entry)
            except (UnusableImage, OSError) as error:
                left_out.append([entry.key, str(error)])
                continue
            record = example(image, entry, numbers, task.settings.features)
            writer.write(record)
            offsets.append(offsets[-1] + record_framing.FRAME_BYTES + len(record))
            hashes.append(subsets.key_hash(entry.key.encode()))
            class_counts.update(entry.labels)
    record_index.store(task.path, "offsets", np.array(offsets, np.uint64))
    features = task.settings.features
    if features.key != features.image:  # Else subsets go by the images' bytes.
        kind = record_index.keys_kind(features.key, offsets[-1])
        record_index.store(task.path, kind, np.array(hashes, np.uint64))
    checksum = files.sync_and_hash(part)
    os.replace(part, task.path)
    report = {
        "file": os.path.basename(task.path),
        "records": len(hashes),
        "bytes": offsets[-1],
        "sha256": checksum,
        "class_counts": dict(class_counts),
        "left_out": left_out,
        "plan": task.plan,
    }
    files.write_json(task.report_path, report)
    return report


def example(
    image: CheckedImage, entry: Entry, numbers: dict[str, int], features: Features
) -> bytes:
    """Return an image as a serialized `tf.train.Example` in the standard keys."""
    ints = {
        "image/height": [image.height],
        "image/width": [image.width],
        "image/channels": [image.channels],
        features.label: [numbers[n] - features.label_offset for n in entry.labels],
    }
    texts = {
        features.image: [image.encoded],
        "image/format": [image.format.lower().encode()],
        "image/class/text": [name.encode() for name in entry.labels],
    }
    if features.key != features.image:
        texts[features.key] = [entry.key.encode()]
    made = {
        key: tf.train.Feature(int64_list=tf.train.Int64List(value=value))
        for key, value in ints.items()
    }
    for key, value in texts.items():
        made[key] = tf.train.Feature(bytes_list=tf.train.BytesList(value=value))
    whole = tf.train.Example(features=tf.train.Features(feature=made))
    return whole.SerializeToString(deterministic=True)


def _checked(task: ShardTask, entry: Entry) -> CheckedImage:
    settings = task.settings
    return check_image(
        task.source.read(entry),
        max_pixels=settings.max_pixels,
        min_side=settings.min_side,
        reencode=settings.reencode,
        quality=settings.quality,
    )


def _ordered(entries: Sequence[Entry], shuffle: bool) -> list[Entry]:
    if not entries:
        raise ValueError("The source must have images; received none.")
    keys = collections.Counter(entry.key for entry in entries)
    doubled = [key for key, times in keys.items() if times > 1]
    if doubled:
        raise ValueError(
            f"Keys must be unique in a split; {doubled[0]!r} is given "
            f"{keys[doubled[0]]} times ({len(doubled)} such keys)."
        )
    if not shuffle:
        return list(entries)
    # The salt keeps a shard from being a subset of its own (see subsets.py).
    return sorted(entries, key=lambda e: subsets.key_hash(b"order/" + e.key.encode()))


def _fingerprint(
    entries: Sequence[Entry], classes: tuple[str, ...], count: int, settings: Settings
) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((FORMAT_VERSION, classes, count, settings)).encode())
    for entry in entries:
        digest.update(repr((entry.key, entry.labels, entry.size_bytes)).encode())
    return digest.hexdigest()


def _finished(
    output_dir: str, split: str, plan: str, overwrite: bool
) -> dict[str, Any] | None:
    path = manifest_path(output_dir, split)
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        manifest = json.load(file)
    if overwrite:
        os.remove(path)
        return None
    if manifest["plan"] != plan:
        raise ValueError(
            f"`output_dir` already holds split {split!r}, made from other images or "
            f"with other settings; received {output_dir!r}. Choose another folder, or "
            "pass --overwrite."
        )
    return manifest


def _run(
    tasks: list[ShardTask],
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> list[dict[str, Any]]:
    total = sum(len(task.entries) for task in tasks)
    done, reports = 0, {}
    for task, report in _reports(tasks, workers):
        reports[task.path] = report
        done += len(task.entries)
        if progress:
            progress(done, total)
    return [reports[task.path] for task in tasks]


def _reports(
    tasks: list[ShardTask], workers: int | None
) -> Iterator[tuple[ShardTask, dict[str, Any]]]:
    left = []
    for task in tasks:
        report = task.finished()
        if report is None:
            left.append(task)
        else:
            yield task, report
    workers = min(workers or os.cpu_count() or 1, len(left))
    if workers <= 1:
        for task in left:
            yield task, write_shard(task)
        return
    # Not fork: TensorFlow's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_end_with_parent
    ) as pool:
        futures = {pool.submit(write_shard, task): task for task in left}
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()


def _end_with_parent() -> None:
    """End this worker when its parent is gone, even by kill -9: it waits forever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _remove_others(output_dir: str, split: str, paths: list[str]) -> None:
    """Remove this split's files that are no part of it: other counts', half-written."""
    keep = set(map(os.path.basename, paths))
    # Of this split and no other whose name begins with its name, such as train-extra.
    ours = re.compile(rf"{re.escape(split)}{files.NUMBERED}\.tfrecord")
    for folder in (output_dir, os.path.join(output_dir, record_index.INDEX_FOLDER)):
        for name in os.listdir(folder):
            found = ours.match(name)
            if not found:
                continue
            rest = name[found.end() :]
            is_old = found[0] not in keep or rest.endswith(".part")
            if rest.startswith((".keys", ".imagekeys")) and not is_old:
                # Hashes of keys of a shard that had this name before.
                size = os.path.getsize(os.path.join(output_dir, found[0]))
                is_old = not rest.endswith(f"-{size}.npy")
            if is_old:
                os.remove(os.path.join(folder, name))


def _manifest(
    split: str,
    classes: tuple[str, ...],
    settings: Settings,
    plan: str,
    reports: list[dict[str, Any]],
) -> dict[str, Any]:
    counts: collections.Counter[str] = collections.Counter()
    for report in reports:
        counts.update(report["class_counts"])
    left_out = [row for report in reports for row in report["left_out"]]
    return {
        "format": FORMAT_VERSION,
        "split": split,
        "records": sum(report["records"] for report in reports),
        "bytes": sum(report["bytes"] for report in reports),
        "shards": [
            {name: report[name] for name in ("file", "records", "bytes", "sha256")}
            for report in reports
        ],
        "class_counts": {name: counts[name] for name in classes},
        "left_out": len(left_out),
        "left_out_named": [
            {"key": key, "reason": reason} for key, reason in left_out[:NAMED_LEFT_OUT]
        ],
        "settings": dataclasses.asdict(settings),
        "plan": plan,
    }
