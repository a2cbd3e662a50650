"""Remove near-duplicates from a training set: search, copy the rest, and report."""
# SPDX-License-Identifier: Apache-2.0

import collections
import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from etils import epath

from vit_scaling.data.deduplication import removal_report
from vit_scaling.data.deduplication.local_driver import LocalDriver
from vit_scaling.data.deduplication.search import (
    TRAINING_SET,
    Removal,
    Search,
    SearchResult,
)
from vit_scaling.data.deduplication.shard_copying import (
    CopiedShard,
    ShardCopy,
    plan_copies,
)
from vit_scaling.data.manifests import make_manifest, manifest_path
from vit_scaling.data.sidecar_files import INDEX_FOLDER
from vit_scaling.data.tfrecords import CLASSES_FILE, NUMBERS_PATTERN, TFRecords
from vit_scaling.data.writing.class_names import write_class_names
from vit_scaling.io_files import absolute_path, atomic_file, is_partial, write_json


class Driver(Protocol):
    """Maps the steps of a search and the copies of shards over the data."""

    def run_search(self, search: Search) -> SearchResult:
        """Find the training records to remove."""

    def copy_shards(self, tasks: Sequence[ShardCopy]) -> Iterator[CopiedShard]:
        """Copy shards; yield what is reported of them, in the same order."""


def clean(
    search: Search,
    *,
    output_dir: str,
    report: bool = True,
    exceptions: str | None = None,
    driver: Driver | None = None,
) -> dict[str, Any]:
    """Write a training set without near-duplicates, and lists of what was removed.

    The folder gets the shards, `classes.txt` and a manifest in the writer's format,
    removed.csv (all removed records), deduplication.json and report.html.

    Args:
        search: The sets, and when two images are near-duplicates.
        output_dir: A folder other than those of the sets.
        report: Write report.html.
        exceptions: A CSV file with rows of an earlier removed.csv; these records are
            kept, for example because a person has seen that they are no copies.
        driver: Runs the search and the copies; None is `LocalDriver()`.

    Returns:
        The content of deduplication.json.

    Raises:
        ValueError: `output_dir` is a folder of one of the sets, no image of a set
            decodes, or `exceptions` has other columns.
    """
    kept = removal_report.read_exceptions(exceptions) if exceptions else ()
    driver, train = driver or LocalDriver(), search.train
    _check_output_dir(search, output_dir)
    _check_class_names(train)
    (epath.Path(output_dir) / INDEX_FOLDER).mkdir(parents=True, exist_ok=True)
    _remove_partial_files(output_dir)
    found = driver.run_search(search)
    tasks = plan_copies(search, found.removals, output_dir, frozenset(kept))
    copies = _Copies()
    removed_csv = os.path.join(output_dir, "removed.csv")
    with atomic_file(removed_csv) as temporary, temporary.open("wb") as file:
        file.write(removal_report.removal_list_header().encode())
        for copied in driver.copy_shards(tasks):
            file.write(copied.removal_list.encode())
            copies.add(copied)
    if train.class_names:
        write_class_names(os.path.join(output_dir, CLASSES_FILE), train.class_names)
    _write_manifest(train, copies, output_dir)
    result = {
        "records": train.index().num_records,
        "removed": sum(row["removed"] for row in copies.rows),
        "exceptions": copies.exceptions,
        "kept": sum(row["records"] for row in copies.rows),
        "unreadable": found.unreadable,
        "unreadable_against": sum(found.unreadable_against),
        "thresholds": dataclasses.asdict(search.thresholds),
        "removed_by_set": _name_counts(search, copies.removed_by_set),
        "shards": copies.rows,
    }
    write_json(os.path.join(output_dir, "deduplication.json"), result)
    if report:
        report_html = os.path.join(output_dir, "report.html")
        removal_report.write_report(report_html, search, copies.least_alike, result)
    return result


class _Copies:
    """What the reports say of all copied shards; does not grow with the removals."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.class_counts: collections.Counter[int] = collections.Counter()
        self.removed_by_set: collections.Counter[int] = collections.Counter()
        self.least_alike: list[Removal] = []
        self.exceptions = 0

    def add(self, copied: CopiedShard) -> None:
        self.rows.append(copied.row)
        self.class_counts.update(copied.class_counts)
        self.removed_by_set.update(removal.dataset for removal in copied.removals)
        self.least_alike = removal_report.find_least_alike(
            [*self.least_alike, *copied.removals]
        )
        self.exceptions += copied.exceptions


def _check_output_dir(search: Search, output_dir: str) -> None:
    sets = [("training", search.train), *(("evaluation", s) for s in search.against)]
    for name, source in sets:
        folders = {os.path.dirname(absolute_path(s.path)) for s in source.shards}
        if absolute_path(output_dir) in folders:
            raise ValueError(
                f"`output_dir` must not be the {name} set's own folder; received "
                f"{output_dir!r}."
            )


def _check_class_names(train: TFRecords) -> None:
    """Raise if labels count by different class names: records are copied unchanged."""
    if len(set(train.class_names_by_folder.values())) > 1:
        raise ValueError(
            "The training set's folders must have the same class names, since its "
            f"records keep their labels; received {list(train.class_names_by_folder)}. "
            "Write one set of them first: vit-scaling data write "
            "--source=tfrecords:PATTERN."
        )


def _remove_partial_files(output_dir: str) -> None:
    """Remove partial files, which a run that was killed has left."""
    root = epath.Path(output_dir)
    for folder in (root, root / INDEX_FOLDER):
        for path in filter(is_partial, list(folder.iterdir())):
            path.unlink()


def _name_counts(search: Search, counts: collections.Counter[int]) -> dict[str, int]:
    """Return the numbers of removals by the names of the sets."""
    internal, sets = counts[TRAINING_SET], enumerate(search.against)
    by_set = {str(source.pattern): counts[number] for number, source in sets}
    return {"the training set itself": internal, **by_set} if internal else by_set


def _write_manifest(train: TFRecords, copies: _Copies, output_dir: str) -> None:
    counts, rows = copies.class_counts, copies.rows
    names = train.class_names or tuple(map(str, range(max(counts, default=-1) + 1)))
    # The split of train-extra-00000-of-00004.tfrecord is train-extra.
    split = re.sub(f"{NUMBERS_PATTERN}.*", "", rows[0]["file"]).split(".")[0]
    manifest = make_manifest(
        split,
        rows,
        class_counts={name: counts[number] for number, name in enumerate(names)},
        settings={"deduplicated_from": str(train.pattern)},
        plan="deduplicated",
    )
    write_json(manifest_path(output_dir, split), manifest)
