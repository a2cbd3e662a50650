"""Write a split of a set: shards in parallel, resumable, and a manifest."""
# SPDX-License-Identifier: Apache-2.0

import collections
import dataclasses
import hashlib
import itertools
import os
import re
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from etils import epath

from vit_scaling.data.manifests import (
    FORMAT_VERSION,
    MAX_LEFT_OUT_NAMED,
    make_manifest,
    manifest_path,
)
from vit_scaling.data.sidecar_files import INDEX_FOLDER
from vit_scaling.data.tfrecords import NUMBERS_PATTERN, shard_name
from vit_scaling.data.writing import shard_processes
from vit_scaling.data.writing.class_names import assign_class_names
from vit_scaling.data.writing.image_entries import (
    EntrySource,
    EntryTable,
    Listing,
    StoredEntries,
    format_summary,
)
from vit_scaling.data.writing.shard_writer import (
    REPORT_SUFFIX,
    Settings,
    ShardTask,
)
from vit_scaling.io_files import (
    PARTIAL_PREFIX,
    map_in_threads,
    read_json,
    write_json,
)

# By default a split has this many shards if each gets this many images, so that
# several processes can write it. The number does not depend on the machine, because
# any machine may continue.
_MIN_SHARDS, _MIN_SHARD_IMAGES = 16, 64
_REPORTS_AT_ONCE = 256
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
    continues with the first incomplete shard, and no image is lost or duplicated. Of a
    finished split, only missing or truncated shards and index files are written again.
    Two writers must not write the same split at the same time.

    Args:
        source: The images.
        output_dir: Folder of the set. Its `classes.txt` gives the class indices; if it
            does not exist, it is made from this split: write the training split first.
        split: Name of the split and prefix of the shards' names.
        num_shards: Number of shards; None makes shards of about `shard_bytes`, and at
            least 16 if each gets 64 images. A finished split keeps its number.
        shard_bytes: Wanted size of a shard if `num_shards` is None.
        settings: How images become records.
        overwrite: Write a finished split again.
        write_shards: Writes the shards with other means first (see beam_driver.py).
        workers: Number of processes; 1 uses this process. None is one per core, or 1
            for small sets.
        progress: Called with the number of finished images and of all images, first
            before any is written.

    Raises:
        ValueError: A class is not in `classes.txt`, there are no images, two have the
            same key, or the split exists with other content and `overwrite` is False.
            Or a shard written again differs from the manifest.
    """
    settings = settings or Settings()
    entries = source.listing.entries
    _check_entries(source.listing)
    folder = epath.Path(output_dir) / INDEX_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    _remove_files(output_dir, split)
    classes = assign_class_names(source, entries, output_dir, split)
    manifest = _read_manifest(output_dir, split, overwrite)
    count = num_shards or _choose_num_shards(entries, shard_bytes, manifest)
    plan = _fingerprint(entries, classes, count, settings)
    if manifest:
        _check_plan(manifest, plan, output_dir)
    tasks = []
    for number in range(count):
        path = epath.Path(output_dir) / shard_name(split, number, count)
        stored = _name_stored(path, len(entries), number, count)
        tasks.append(ShardTask(source, stored, str(path), classes, settings, plan))
    unfinished = _find_unfinished(tasks, manifest)
    try:
        _store_entries(entries, tasks, unfinished)
        if write_shards and unfinished:
            write_shards(unfinished)
            unfinished = _find_unfinished(unfinished, None)
        _write(unfinished, len(entries), workers, progress)
    finally:
        _remove_files(output_dir, split)
    if manifest:
        _check_unchanged(tasks, manifest)
    else:
        manifest = _manifest_of(tasks, source, split)
        write_json(manifest_path(output_dir, split), manifest)
    _remove_files(output_dir, split, keep={os.path.basename(t.path) for t in tasks})
    return manifest


def _choose_num_shards(
    entries: EntryTable, shard_bytes: int, manifest: dict[str, Any] | None
) -> int:
    if manifest:
        return len(manifest["shards"])
    by_size = -(-entries.count_bytes() // shard_bytes)
    return max(1, by_size, min(_MIN_SHARDS, len(entries) // _MIN_SHARD_IMAGES))


def _name_stored(
    path: epath.Path, images: int, number: int, count: int
) -> StoredEntries:
    """Return the images of shard `number` of `count`, to be stored near its path."""
    name = f"{PARTIAL_PREFIX}{uuid.uuid4().hex}-{path.name}.entries"
    first, end = images * number // count, images * (number + 1) // count
    return StoredEntries(str(path.parent / INDEX_FOLDER / name), end - first)


def _store_entries(
    table: EntryTable, tasks: Sequence[ShardTask], unfinished: Sequence[ShardTask]
) -> None:
    """Store the images of unfinished shards, those of one shard after the other."""
    wanted = {task.path for task in unfinished}
    ordered = table.iterate(shuffle=tasks[0].settings.shuffle)
    for task in tasks if wanted else ():
        entries = itertools.islice(ordered, len(task.entries))
        if task.path in wanted:
            task.entries.store(entries)
        collections.deque(entries, maxlen=0)


def _find_unfinished(
    tasks: Sequence[ShardTask], manifest: dict[str, Any] | None
) -> list[ShardTask]:
    """Return the tasks whose files are missing or have another size.

    Args:
        tasks: Shards to look for.
        manifest: Lists the finished shards; None looks for the shards' reports.
    """
    rows = {row["file"]: row for row in manifest["shards"]} if manifest else {}
    finished = map_in_threads(
        lambda task: task.is_finished(rows.get(os.path.basename(task.path))), tasks
    )
    return [task for task, done in zip(tasks, finished, strict=True) if not done]


def _write(
    tasks: Sequence[ShardTask],
    total: int,
    workers: int | None,
    progress: Progress | None,
) -> None:
    before = total - sum(len(task.entries) for task in tasks)

    def count(images: int) -> None:
        if progress:
            progress(before + images, total)

    if tasks:
        count(0)
        shard_processes.write_shards(tasks, workers, count)


def _check_unchanged(tasks: Sequence[ShardTask], manifest: dict[str, Any]) -> None:
    """Raise if a shard that was written again differs from the manifest's row."""
    for task, row in zip(tasks, manifest["shards"], strict=True):
        report = task.read_report()
        if report and any(report[name] != value for name, value in row.items()):
            raise ValueError(
                f"{task.path} was missing or damaged and was written again, but its "
                "content differs from the manifest's: images or this program have "
                "changed. Write the split again with --overwrite."
            )


def _manifest_of(
    tasks: Sequence[ShardTask], source: EntrySource, split: str
) -> dict[str, Any]:
    counts: collections.Counter[str] = collections.Counter()
    rows: list[dict[str, Any]] = []
    left_out: list[tuple[str, str]] = []
    left_out_count = converted = 0
    for report in _read_reports(tasks):
        counts.update(report.pop("class_counts"))
        left_out_count += len(report["left_out"])
        left_out = (left_out + report.pop("left_out"))[:MAX_LEFT_OUT_NAMED]
        converted += report.get("converted", 0)
        rows.append(report)
    return make_manifest(
        split,
        rows,
        class_counts={name: counts[name] for name in tasks[0].classes},
        left_out=left_out,
        left_out_count=left_out_count,
        converted=converted,
        settings=dataclasses.asdict(tasks[0].settings),
        plan=tasks[0].plan,
        listing=source.listing.summarize(),
    )


def _read_reports(tasks: Sequence[ShardTask]) -> Iterator[dict[str, Any]]:
    """Yield the shards' reports, which are not all in memory at the same time."""
    paths = [task.report_path for task in tasks]
    for first in range(0, len(paths), _REPORTS_AT_ONCE):
        yield from map_in_threads(read_json, paths[first : first + _REPORTS_AT_ONCE])


def _check_entries(listing: Listing) -> None:
    if not len(listing.entries):
        raise ValueError(
            "The source must have images; received none. "
            f"{format_summary(listing.summarize())}"
        )
    repeated = listing.entries.find_repeated_keys()
    if repeated:
        key, times, count = repeated
        raise ValueError(
            f"Keys must be unique in a split; {key!r} is given {times} times "
            f"({count} such keys)."
        )


def _fingerprint(
    entries: EntryTable, classes: tuple[str, ...], count: int, settings: Settings
) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((FORMAT_VERSION, classes, count, settings)).encode())
    for entry in entries.iterate(shuffle=settings.shuffle):
        digest.update(repr((entry.key, entry.labels, entry.size_bytes)).encode())
    return digest.hexdigest()


def _read_manifest(
    output_dir: str, split: str, overwrite: bool
) -> dict[str, Any] | None:
    path = epath.Path(manifest_path(output_dir, split))
    if not path.exists():
        return None
    if overwrite:
        path.unlink()
        return None
    manifest: dict[str, Any] = read_json(path)
    return manifest


def _check_plan(manifest: dict[str, Any], plan: str, output_dir: str) -> None:
    if manifest["plan"] != plan:
        raise ValueError(
            f"`output_dir` already holds split {manifest['split']!r}, made from other "
            f"images or with other settings; received {output_dir!r}. Choose another "
            "folder, or pass --overwrite."
        )


def _remove_files(
    output_dir: str, split: str, keep: Collection[str] | None = None
) -> None:
    """Remove partial files of a split, which an earlier writer may have left.

    Splits whose name starts with this one's, such as train-extra, are kept.

    Args:
        output_dir: Folder of the set.
        split: Name of the split.
        keep: The finished split's shards. Removes also the files of shards with other
            names or sizes, and the shards' reports.
    """
    name_pattern = re.compile(
        rf"(?P<partial>{re.escape(PARTIAL_PREFIX)}[^-]+-)?{re.escape(split)}"
        rf"(\.manifest\.json|(?P<numbers>{NUMBERS_PATTERN}\.tfrecord)(?P<suffix>.*))"
    )
    root = epath.Path(output_dir)
    for folder in (root, root / INDEX_FOLDER):
        for path in folder.iterdir():
            match = name_pattern.fullmatch(path.name)
            if not match:
                continue
            suffix = match["suffix"] or ""
            # Earlier versions wrote to PATH.part.
            obsolete = match["partial"] or suffix.endswith(".part")
            if keep is not None and match["numbers"] and not obsolete:
                shard = f"{split}{match['numbers']}"
                obsolete = shard not in keep or suffix == REPORT_SUFFIX
                if suffix.startswith(".keys") and not obsolete:
                    size = (root / shard).stat().length
                    obsolete = not suffix.endswith(f"-{size}.npy")
            if obsolete:
                path.unlink()
