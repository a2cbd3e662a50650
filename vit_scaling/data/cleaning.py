"""Remove near-duplicates from a training set: find, report, and write what is left."""
# SPDX-License-Identifier: Apache-2.0

import base64
import collections
import csv
import dataclasses
import html
import io
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vit_scaling.data import files, fingerprints, framing, index
from vit_scaling.data.class_names import write_class_names
from vit_scaling.data.deduplication import (
    Match,
    NearDuplicates,
    Thresholds,
    find_repeats,
)
from vit_scaling.data.fingerprints import Fingerprint
from vit_scaling.data.records_in import read_all, read_example, values
from vit_scaling.data.tfrecords import CLASSES_FILE, TFRecords

# Pairs in the report; the list of what was removed (removed.csv) has all.
REPORTED_PAIRS = 200


@dataclasses.dataclass(frozen=True)
class Removal:
    """A training record that goes, and the image that it repeats.

    Args:
        record: Number in the training set.
        against: Number of the evaluation set, or -1: the training set itself.
        match: The image of that set (`key` is its record number), and how near.
    """

    record: int
    against: int
    match: Match


def fingerprint_or_none(
    data: bytes, image_key: str, make: Callable[[bytes], Fingerprint]
) -> Fingerprint | None:
    """Return a record's fingerprint; None if its image does not decode."""
    try:
        return make(values(tf.train.Example.FromString(data), image_key)[0])
    except Exception:  # Pillow's many kinds; verify_tfrecords names such records.
        return None


def evaluation_index(
    sources: Sequence[TFRecords], thresholds: Thresholds
) -> NearDuplicates:
    """Return the index of all images of the evaluation sets.

    Its keys are (number of the set, record number).

    Raises:
        ValueError: No image of them decodes.
    """
    keys, prints = [], []
    for number, source in enumerate(sources):
        for record, data in read_all(source.index()):
            one = fingerprint_or_none(
                data, source.features.image, fingerprints.of_evaluation
            )
            if one is not None:
                keys.append((number, record))
                prints.append(one)
    if not keys:
        raise ValueError("`against` must hold images that decode; received none.")
    return NearDuplicates(keys, prints, thresholds)


def find_removals(
    train: TFRecords,
    against: Sequence[TFRecords],
    *,
    thresholds: Thresholds,
    repeats: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Removal], int]:
    """Return which training records go, and how many did not decode.

    Args:
        train: The training set.
        against: Evaluation sets, their training and test sides.
        thresholds: What counts as near.
        repeats: Also remove what repeats an earlier training image.
        progress: Called with records done and records in all.
    """
    judge = evaluation_index(against, thresholds) if against else None
    found: list[Removal] = []
    kept: list[tuple[int, Fingerprint]] = []
    unreadable = 0
    index_ = train.index()
    for record, data in read_all(index_):
        one = fingerprint_or_none(data, train.features.image, fingerprints.of_training)
        match = judge.match(one) if judge and one else None
        if one is None:
            unreadable += 1
        elif match:
            number, place = match.key
            found.append(Removal(record, number, dataclasses.replace(match, key=place)))
        elif repeats:
            kept.append((record, one))
        if progress and record % 1000 == 999:
            progress(record + 1, index_.num_records)
    if kept:
        pairs = find_repeats([k for k, _ in kept], [p for _, p in kept], thresholds)
        found += [Removal(record, -1, match) for record, match in pairs]
    return sorted(found, key=lambda removal: removal.record), unreadable


Finder = Callable[..., tuple[list[Removal], int]]


def write_without(
    train: TFRecords, removed: Sequence[int], output_dir: str
) -> list[dict[str, Any]]:
    """Copy a set's shards, byte for byte, without some records; return their rows."""
    os.makedirs(os.path.join(output_dir, index.INDEX_FOLDER), exist_ok=True)
    gone = set(removed)
    rows, number = [], 0
    for shard, count in zip(train.shards, train.index().counts, strict=True):
        path = os.path.join(output_dir, os.path.basename(shard.path))
        part = path + ".part"
        offsets = [0]
        with tf.io.TFRecordWriter(part) as writer:
            for data in tf.data.TFRecordDataset(shard.path).as_numpy_iterator():
                if number not in gone:
                    writer.write(data)
                    offsets.append(offsets[-1] + framing.FRAME_BYTES + len(data))
                number += 1
        index.store(path, "offsets", np.array(offsets, np.uint64))
        checksum = files.sync_and_hash(part)
        os.replace(part, path)
        rows.append(
            {
                "file": os.path.basename(path),
                "records": len(offsets) - 1,
                "bytes": offsets[-1],
                "sha256": checksum,
                "removed": int(count) - len(offsets) + 1,
            }
        )
    return rows


def clean(
    train: TFRecords,
    against: Sequence[TFRecords],
    *,
    output_dir: str,
    thresholds: Thresholds | None = None,
    repeats: bool = False,
    find: Finder | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write a training set without near-duplicates, removed.csv and report.html.

    Args:
        train: The training set; its class names go along.
        against: Evaluation sets.
        output_dir: A folder that is not the set's own.
        thresholds: What counts as near.
        repeats: Also remove repeats inside the training set.
        find: What finds the removals; None is `find_removals` in this process.
        progress: Called with records done and records in all.

    Raises:
        ValueError: `output_dir` is the training set's folder.
    """
    thresholds = thresholds or Thresholds()
    home = os.path.dirname(os.path.abspath(train.shards[0].path))
    if os.path.abspath(output_dir) == home:
        raise ValueError(
            "`output_dir` must not be the training set's own folder; received "
            f"{output_dir!r}."
        )
    removals, unreadable = (find or find_removals)(
        train, against, thresholds=thresholds, repeats=repeats, progress=progress
    )
    rows = write_without(train, [r.record for r in removals], output_dir)
    if train.class_names:
        write_class_names(os.path.join(output_dir, CLASSES_FILE), train.class_names)
    names = [str(source.pattern) for source in against]
    counts = collections.Counter(r.against for r in removals)
    result = {
        "records": train.index().num_records,
        "removed": len(removals),
        "kept": sum(row["records"] for row in rows),
        "unreadable": unreadable,
        "thresholds": dataclasses.asdict(thresholds),
        "removed_by_set": {
            "the training set itself" if n < 0 else names[n]: counts[n]
            for n in sorted({*range(len(names)), *counts})
        },
        "shards": rows,
    }
    files.write_json(os.path.join(output_dir, "deduplication.json"), result)
    _write_list(train, against, removals, os.path.join(output_dir, "removed.csv"))
    page = _report(train, against, removals, result)
    with open(os.path.join(output_dir, "report.html"), "w", encoding="utf-8") as file:
        file.write(page)
    return result


def _write_list(
    train: TFRecords,
    against: Sequence[TFRecords],
    removals: Sequence[Removal],
    path: str,
) -> None:
    here, there = train.index(), [source.index() for source in against]
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["file", "record", "like_file", "like_record", "distance", "likeness"]
        )
        for removal in removals:
            other = here if removal.against < 0 else there[removal.against]
            rows.writerow(
                [
                    *here.locate(removal.record),
                    *other.locate(removal.match.key),
                    removal.match.distance,
                    f"{removal.match.likeness:.4f}",
                ]
            )


_STYLE = (
    "body{font:15px sans-serif;margin:2em;max-width:70em}"
    "td,th{padding:.2em 1em .2em 0;text-align:left}"
    "figure{display:inline-block;margin:.5em;padding:.5em;border:1px solid #ccc}"
    "img{width:128px;height:128px;object-fit:contain;background:#eee}"
    "figcaption{font-size:12px;max-width:270px;overflow-wrap:anywhere}"
)


def _report(
    train: TFRecords,
    against: Sequence[TFRecords],
    removals: Sequence[Removal],
    result: dict[str, Any],
) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{count}</td></tr>"
        for name, count in result["removed_by_set"].items()
    )
    limits = result["thresholds"]
    # The least alike first: a wrong removal would be among them.
    order = sorted(removals, key=lambda removal: removal.match.likeness)
    pairs = "".join(_pairs(train, against, order[:REPORTED_PAIRS]))
    return (
        "<!DOCTYPE html><html lang='en'><meta charset='utf-8'>"
        f"<title>Near-duplicates removed</title><style>{_STYLE}</style>"
        "<h1>Near-duplicates removed</h1>"
        f"<p>{result['removed']} of {result['records']} training images removed, "
        f"{result['kept']} kept, {result['unreadable']} did not decode (kept). "
        f"Hashes at most {limits['distance']} bits apart, correlation at least "
        f"{limits['likeness']}.</p>"
        f"<table><tr><th>near an image of</th><th>removed</th></tr>{rows}</table>"
        f"<h2>Pairs, least alike first</h2><p>Left: removed; right: what it repeats. "
        f"{min(len(removals), REPORTED_PAIRS)} of {len(removals)}; all are in "
        f"removed.csv.</p>{pairs}</html>\n"
    )


def _pairs(
    train: TFRecords, against: Sequence[TFRecords], removals: Sequence[Removal]
) -> Iterator[str]:
    sources = [*against, train]  # -1 is the training set itself.
    for removal in removals:
        other = sources[removal.against]
        here = _picture(train, removal.record)
        there = _picture(other, removal.match.key)
        path, record = train.index().locate(removal.record)
        like, like_record = other.index().locate(removal.match.key)
        yield (
            f"<figure>{here} {there}<figcaption>{html.escape(os.path.basename(path))} "
            f"{record} ~ {html.escape(os.path.basename(like))} {like_record}<br>"
            f"{removal.match.distance} bits, {removal.match.likeness:.3f}"
            "</figcaption></figure>"
        )


def _picture(source: TFRecords, record: int) -> str:
    from PIL import Image

    encoded = values(read_example(source.index(), record), source.features.image)[0]
    with Image.open(io.BytesIO(encoded)) as image:
        rgb = image.convert("RGB")
    rgb.thumbnail((128, 128))
    buffer = io.BytesIO()
    rgb.save(buffer, "JPEG", quality=80)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='' src='data:image/jpeg;base64,{text}'>"
