"""Write a split of a set: shards in parallel, resumable, and a manifest."""
# SPDX-License-Identifier: Apache-2.0

import collections
import concurrent.futures
import dataclasses
import hashlib
import multiprocessing
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from vit_scaling.data import subsets
from vit_scaling.data.manifests import (
    FORMAT_VERSION,
    make_manifest,
    manifest_path,
)
from vit_scaling.data.sidecar_files import INDEX_FOLDER
from vit_scaling.data.tfrecords import NUMBERS_PATTERN, shard_name
from vit_scaling.data.writing import shard_writer
from vit_scaling.data.writing.class_names import assign_class_names
from vit_scaling.data.writing.image_entries import (
    Entry,
    EntrySource,
    Listing,
    format_summary,
)
from vit_scaling.data.writing.shard_writer import Settings, ShardTask
from vit_scaling.io_files import PARTIAL_PREFIX, read_json, write_json

Progress = Callable[[int, int], None]


def write_tfrecords(
    source: EntrySource,
    *,
    output_dir: str,
    split: str,
    num_shards: int | None = None,
    shard_bytes: int = 200 * 2**20,
    settings: Settings | None = None,
    overwrite: bool = False,
    write_shards: Callable[[list[ShardTask]], None] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a split and return its manifest, which is stored in the folder as well.

    A shard appears under its name only when it is complete. A run that was killed
    continues with the first incomplete shard, and no image is lost or duplicated.

    Args:
        source: The images.
        output_dir: Folder of the set. Its `classes.txt` gives the class indices; if it
            does not exist, it is made from this split: write the training split first.
        split: Name of the split and prefix of the shards' names.
        num_shards: Number of shards; None makes shards of about `shard_bytes`.
        shard_bytes: Wanted size of a shard if `num_shards` is None.
        settings: How images become records.
        overwrite: Write a finished split again.
        write_shards: Writes the shards with other means first (see beam_driver.py).
        workers: Number of processes; None is one per core; 1 uses this process.
        progress: Called with the number of finished images and of all images.

    Raises:
        ValueError: A class is not in `classes.txt`, there are no images, two have the
            same key, or the split exists with other content and `overwrite` is False.
    """
    settings = settings or Settings()
    entries = _sort_entries(source.listing, settings.shuffle)
    os.makedirs(os.path.join(output_dir, INDEX_FOLDER), exist_ok=True)
    classes = assign_class_names(source, entries, output_dir, split)
    count = num_shards or max(1, -(-sum(e.size_bytes for e in entries) // shard_bytes))
    plan = _fingerprint(entries, classes, count, settings)
    manifest = _finished_manifest(output_dir, split, plan, overwrite)
    if manifest is not None:
        return manifest
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
    if write_shards:
        write_shards(tasks)
    _write_in_processes(tasks, workers, progress)
    reports = [read_json(task.report_path) for task in tasks]
    _remove_obsolete_files(output_dir, split, {os.path.basename(t.path) for t in tasks})
    counts: collections.Counter[str] = collections.Counter()
    for report in reports:
        counts.update(report["class_counts"])
    manifest = make_manifest(
        split,
        reports,
        class_counts={name: counts[name] for name in classes},
        left_out=[row for report in reports for row in report["left_out"]],
        converted=sum(report.get("converted", 0) for report in reports),
        settings=dataclasses.asdict(settings),
        plan=plan,
        listing=source.listing.summarize(),
    )
    write_json(manifest_path(output_dir, split), manifest)
    for task in tasks:
        os.remove(task.report_path)
    return manifest


def _sort_entries(listing: Listing, shuffle: bool) -> list[Entry]:
    entries = listing.entries
    if not entries:
        raise ValueError(
            "The source must have images; received none. "
            f"{format_summary(listing.summarize())}"
        )
    keys = collections.Counter(entry.key for entry in entries)
    repeated = [key for key, times in keys.items() if times > 1]
    if repeated:
        raise ValueError(
            f"Keys must be unique in a split; {repeated[0]!r} is given "
            f"{keys[repeated[0]]} times ({len(repeated)} such keys)."
        )
    if not shuffle:
        return list(entries)
    # Subsets are chosen by the hash of the key alone; with the same order, the first
    # shards would be such a subset.
    return sorted(entries, key=lambda e: subsets.hash_key(b"order/" + e.key.encode()))


def _fingerprint(
    entries: Sequence[Entry], classes: tuple[str, ...], count: int, settings: Settings
) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((FORMAT_VERSION, classes, count, settings)).encode())
    for entry in entries:
        digest.update(repr((entry.key, entry.labels, entry.size_bytes)).encode())
    return digest.hexdigest()


def _finished_manifest(
    output_dir: str, split: str, plan: str, overwrite: bool
) -> dict[str, Any] | None:
    path = manifest_path(output_dir, split)
    if not os.path.exists(path):
        return None
    if overwrite:
        os.remove(path)
        return None
    manifest = read_json(path)
    if manifest["plan"] != plan:
        raise ValueError(
            f"`output_dir` already holds split {split!r}, made from other images or "
            f"with other settings; received {output_dir!r}. Choose another folder, or "
            "pass --overwrite."
        )
    return manifest


def _write_in_processes(
    tasks: list[ShardTask], workers: int | None, progress: Progress | None
) -> None:
    """Write the shards that an earlier run has not finished."""
    unfinished = [task for task in tasks if task.read_report() is None]
    total = sum(len(task.entries) for task in tasks)
    done = total - sum(len(task.entries) for task in unfinished)
    for task in _written_tasks(unfinished, workers):
        done += len(task.entries)
        if progress:
            progress(done, total)


def _written_tasks(tasks: list[ShardTask], workers: int | None) -> Iterator[ShardTask]:
    """Write shards and yield each task when its shard is finished."""
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    if workers <= 1:
        for task in tasks:
            shard_writer.write_shard(task)
            yield task
        return
    # Not fork: TensorFlow's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker
    ) as pool:
        futures = {pool.submit(shard_writer.write_shard, task): task for task in tasks}
        for future in concurrent.futures.as_completed(futures):
            future.result()
            yield futures[future]


def _start_worker() -> None:
    tf.config.set_visible_devices([], "GPU")  # Its memory is for training.
    _exit_with_parent()


def _exit_with_parent() -> None:
    """End this worker when its parent ends, even by kill -9; it would wait forever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _remove_obsolete_files(output_dir: str, split: str, shards: set[str]) -> None:
    """Remove files of this split with other shard counts or sizes, and partial files.

    Splits whose name starts with this one's, such as train-extra, are kept.
    """
    name_pattern = re.compile(
        rf"(?P<partial>{re.escape(PARTIAL_PREFIX)}[^-]+-)?"
        rf"(?P<shard>{re.escape(split)}{NUMBERS_PATTERN}\.tfrecord)(?P<suffix>.*)"
    )
    for folder in (output_dir, os.path.join(output_dir, INDEX_FOLDER)):
        for name in os.listdir(folder):
            match = name_pattern.fullmatch(name)
            if not match:
                continue
            shard, suffix = match["shard"], match["suffix"]
            obsolete = match["partial"] or shard not in shards
            if suffix.startswith(".keys") and not obsolete:
                size = os.path.getsize(os.path.join(output_dir, shard))
                obsolete = not suffix.endswith(f"-{size}.npy")
            if obsolete or suffix.endswith(".part"):  # As earlier versions named them.
                os.remove(os.path.join(folder, name))
