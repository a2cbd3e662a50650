"""Remove near-duplicates from a training set: find, report, and write what is left."""
# SPDX-License-Identifier: Apache-2.0

import collections
import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from vit_scaling.data.deduplication import fingerprints, removal_report
from vit_scaling.data.deduplication.fingerprints import Fingerprint
from vit_scaling.data.deduplication.internal_duplicates import (
    Member,
    find_repeats,
    members,
)
from vit_scaling.data.deduplication.matching import NearDuplicates, Thresholds
from vit_scaling.data.deduplication.removal_report import Found, Removal
from vit_scaling.data.deduplication.shard_copying import ShardCopy, copies, copy_shard
from vit_scaling.data.examples import feature_values, read_example
from vit_scaling.data.manifests import FORMAT_VERSION, manifest_path
from vit_scaling.data.shard_names import NUMBERS_PATTERN
from vit_scaling.data.sidecar_files import INDEX_FOLDER
from vit_scaling.data.tfrecords import CLASSES_FILE, TFRecords
from vit_scaling.data.writing.class_names import write_class_names
from vit_scaling.io_files import write_json

Progress = Callable[[int, int], None]


class Worker(Protocol):
    """Finds removals and copies shards: `InProcess`, or Beam's (beam.py)."""

    def find(
        self,
        train: TFRecords,
        against: Sequence[TFRecords],
        *,
        thresholds: Thresholds,
        repeats: bool,
        folder: str,
    ) -> Found:
        """Return which training records go, and how many images did not decode."""

    def copy(self, tasks: list[ShardCopy], folder: str) -> list[dict[str, Any]]:
        """Copy shards; return their rows in the same order."""


@dataclasses.dataclass(frozen=True)
class InProcess:
    """Does everything in this process.

    Args:
        progress: Called with records done and records in all.
    """

    progress: Progress | None = None

    def find(
        self,
        train: TFRecords,
        against: Sequence[TFRecords],
        *,
        thresholds: Thresholds,
        repeats: bool,
        folder: str,
    ) -> Found:
        """Return which training records go, and how many images did not decode."""
        del folder
        return find_removals(
            train,
            against,
            thresholds=thresholds,
            repeats=repeats,
            progress=self.progress,
        )

    def copy(self, tasks: list[ShardCopy], folder: str) -> list[dict[str, Any]]:
        """Copy shards one after the other."""
        del folder
        return [copy_shard(task) for task in tasks]


def fingerprint_or_none(
    data: bytes, image_key: str, make: Callable[[bytes], Fingerprint]
) -> Fingerprint | None:
    """Return a record's fingerprint; None if its image does not decode."""
    try:
        return make(feature_values(tf.train.Example.FromString(data), image_key)[0])
    except Exception:  # Pillow's many kinds; verify_tfrecords names such records.
        return None


def evaluation_index(
    sources: Sequence[TFRecords], thresholds: Thresholds
) -> tuple[NearDuplicates, tuple[int, ...]]:
    """Return the index of all evaluation images, and how many of each set have none.

    Its keys are (number of the set, record number).

    Raises:
        ValueError: No image of a set decodes.
    """
    keys: list[tuple[int, int]] = []
    prints: list[Fingerprint] = []
    unreadable = []
    for number, source in enumerate(sources):
        before = len(keys)
        for record, data in source.index().read_records():
            one = fingerprint_or_none(
                data, source.features.image, fingerprints.of_evaluation
            )
            if one is not None:
                keys.append((number, record))
                prints.append(one)
        unreadable.append(source.index().num_records - (len(keys) - before))
        refuse_unreadable("against", source, unreadable[-1])
    return NearDuplicates(keys, prints, thresholds), tuple(unreadable)


def refuse_unreadable(argument: str, source: TFRecords, unreadable: int) -> None:
    """Refuse a set none of whose images decode: of it, nothing could be said.

    Raises:
        ValueError: All are unreadable; names the set's features.
    """
    index_ = source.index()
    if unreadable < index_.num_records:
        return
    try:
        known = ", ".join(sorted(read_example(index_, 0).features.feature))
    except Exception:  # No example at all; protobuf's own kind.
        known = "none"
    raise ValueError(
        f"`{argument}` must hold images that decode; received {source.pattern!r}: none "
        f"of its {unreadable} records has one in the feature "
        f"{source.features.image!r}. Features of the first: {known}. Give the right "
        "one with --image_key (`Features.image`)."
    )


def find_removals(
    train: TFRecords,
    against: Sequence[TFRecords],
    *,
    thresholds: Thresholds,
    repeats: bool = False,
    progress: Progress | None = None,
) -> Found:
    """Return which training records go, and how many images did not decode.

    Args:
        train: The training set.
        against: Evaluation sets, their training and test sides.
        thresholds: What counts as near.
        repeats: Also remove what repeats an earlier training image (of those that are
            not near an evaluation image).
        progress: Called with records done and records in all.
    """
    judge, blind = evaluation_index(against, thresholds) if against else (None, ())
    found: list[Removal] = []
    left: list[Member] = []
    unreadable = 0
    index_, image_key = train.index(), train.features.image
    for record, data in index_.read_records():
        one = fingerprint_or_none(data, image_key, fingerprints.of_training)
        match = judge.match(one) if judge and one else None
        if one is None:
            unreadable += 1
        elif match:
            number, place = match.key
            found.append(Removal(record, number, dataclasses.replace(match, key=place)))
        elif repeats:
            left += members(record, fingerprints.of_whole(one.pixels))
        if progress and record % 1000 == 999:
            progress(record + 1, index_.num_records)
    if left:
        pixels_of = functools.partial(small_picture, train)
        pairs = find_repeats(left, pixels_of, thresholds)
        found += [Removal(record, -1, match) for record, match in pairs]
    return Found(sorted(found, key=lambda r: r.record), unreadable, blind)


def small_picture(source: TFRecords, record: int) -> np.ndarray:
    """Return the small picture of a record's image, uint8 (96, 96, 3)."""
    example = read_example(source.index(), record)
    return fingerprints.small_picture(feature_values(example, source.features.image)[0])


def clean(
    train: TFRecords,
    against: Sequence[TFRecords],
    *,
    output_dir: str,
    thresholds: Thresholds | None = None,
    repeats: bool = False,
    report: bool = True,
    worker: Worker | None = None,
) -> dict[str, Any]:
    """Write a training set without near-duplicates, its manifest, and what went.

    The folder gets the shards, `classes.txt` and a manifest as the writer makes them;
    removed.csv (all that was removed), deduplication.json and report.html.

    Args:
        train: The training set; its class names go along.
        against: Evaluation sets.
        output_dir: A folder that is not the set's own.
        thresholds: What counts as near.
        repeats: Also remove repeats inside the training set.
        report: Write report.html.
        worker: What finds and copies; None is `InProcess()`.

    Raises:
        ValueError: `output_dir` is a folder of one of the sets; there is nothing to
            look for; or no image of a set decodes.
    """
    thresholds, worker = thresholds or Thresholds(), worker or InProcess()
    _check(train, against, output_dir, repeats)
    os.makedirs(os.path.join(output_dir, INDEX_FOLDER), exist_ok=True)
    found = worker.find(
        train, against, thresholds=thresholds, repeats=repeats, folder=output_dir
    )
    refuse_unreadable("train", train, found.unreadable)
    for source, count in zip(against, found.unreadable_against, strict=True):
        refuse_unreadable("against", source, count)
    gone = found.removals
    tasks = copies(train, [removal.record for removal in gone], output_dir)
    rows = worker.copy(tasks, output_dir)
    if train.class_names:
        write_class_names(os.path.join(output_dir, CLASSES_FILE), train.class_names)
    _write_manifest(train, rows, output_dir)
    result = {
        "records": train.index().num_records,
        "removed": len(gone),
        "kept": sum(row["records"] for row in rows),
        "unreadable": found.unreadable,
        "unreadable_against": sum(found.unreadable_against),
        "thresholds": dataclasses.asdict(thresholds),
        "removed_by_set": dict(_by_set(against, gone)),
        "shards": [_without_counts(row) for row in rows],
    }
    write_json(os.path.join(output_dir, "deduplication.json"), result)
    removal_report.write_list(
        train, against, gone, os.path.join(output_dir, "removed.csv")
    )
    if report:
        page = removal_report.report(train, against, gone, result)
        path = os.path.join(output_dir, "report.html")
        with open(path, "w", encoding="utf-8") as file:
            file.write(page)
    return result


def _check(
    train: TFRecords, against: Sequence[TFRecords], output_dir: str, repeats: bool
) -> None:
    for name, source in [("training", train), *(("evaluation", s) for s in against)]:
        homes = {os.path.dirname(os.path.realpath(s.path)) for s in source.shards}
        if os.path.realpath(output_dir) in homes:
            raise ValueError(
                f"`output_dir` must not be the {name} set's own folder; received "
                f"{output_dir!r}."
            )
    if not against and not repeats:
        raise ValueError(
            "`against` must name evaluation sets unless `repeats` are looked for; "
            "received none."
        )


def _by_set(
    against: Sequence[TFRecords], gone: Sequence[Removal]
) -> Iterator[tuple[str, int]]:
    counts = collections.Counter(removal.against for removal in gone)
    if counts[-1]:
        yield "the training set itself", counts[-1]
    for number, source in enumerate(against):
        yield str(source.pattern), counts[number]


def _without_counts(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "class_counts"}


def _split_of(file: str) -> str:
    """Return a shard's split: train-extra of train-extra-00000-of-00004.tfrecord."""
    return re.sub(f"{NUMBERS_PATTERN}.*", "", file).split(".")[0]


def _write_manifest(
    train: TFRecords, rows: Sequence[dict[str, Any]], output_dir: str
) -> None:
    """Write the manifest of what is left, as the writer does."""
    counts: collections.Counter[int] = collections.Counter()
    for row in rows:
        counts.update(row["class_counts"])
    names = train.class_names or tuple(map(str, range(max(counts, default=-1) + 1)))
    split = _split_of(rows[0]["file"])
    keys = ("file", "records", "bytes", "sha256")
    manifest = {
        "format": FORMAT_VERSION,
        "split": split,
        "records": sum(row["records"] for row in rows),
        "bytes": sum(row["bytes"] for row in rows),
        "shards": [{key: row[key] for key in keys} for row in rows],
        "class_counts": {name: counts[n] for n, name in enumerate(names)},
        "left_out": 0,
        "left_out_named": [],
        "settings": {"deduplicated_from": str(train.pattern)},
        "plan": "deduplicated",
    }
    write_json(manifest_path(output_dir, split), manifest)
