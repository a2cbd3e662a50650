"""What de-duplication removed: the list of all, and pairs side by side to look at."""
# SPDX-License-Identifier: Apache-2.0

import base64
import csv
import dataclasses
import html
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any

from vit_scaling.data.deduplication.matching import Match
from vit_scaling.data.examples import feature_values, read_example
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing.image_checks import to_eight_bits

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


@dataclasses.dataclass(frozen=True)
class Found:
    """What the search found.

    Args:
        removals: Training records that go, rising.
        unreadable: How many training images did not decode; they are kept.
        unreadable_against: The same of each evaluation set.
    """

    removals: list[Removal]
    unreadable: int
    unreadable_against: tuple[int, ...] = ()


def write_list(
    train: TFRecords,
    against: Sequence[TFRecords],
    removals: Sequence[Removal],
    path: str,
) -> None:
    """Write removed.csv: each removed record, by file, number and key, and its like."""
    sources = [*against, train]  # -1 is the training set itself.
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        mine = ["file", "record", "key"]
        rows.writerow([*mine, *(f"like_{name}" for name in mine), *_HOW_NEAR])
        for removal in removals:
            rows.writerow(
                [
                    *_named(train, removal.record),
                    *_named(sources[removal.against], removal.match.key),
                    removal.match.distance,
                    f"{removal.match.likeness:.4f}",
                ]
            )


def _named(source: TFRecords, record: int) -> tuple[str, int, str]:
    """Return a record's file, number in it, and key (empty if it has none)."""
    index = source.index()
    feature = read_example(index, record).features.feature.get(source.features.key)
    keys = feature.bytes_list.value if feature else []
    has_key = keys and source.features.key != source.features.image
    return (
        *index.locate(record),
        keys[0].decode("utf-8", "replace") if has_key else "",
    )


_HOW_NEAR = ("distance", "likeness")
_STYLE = (
    "body{font:15px sans-serif;margin:2em;max-width:70em}"
    "td,th{padding:.2em 1em .2em 0;text-align:left}"
    "figure{display:inline-block;margin:.5em;padding:.5em;border:1px solid #ccc}"
    "img{width:128px;height:128px;object-fit:contain;background:#eee}"
    "figcaption{font-size:12px;max-width:270px;overflow-wrap:anywhere}"
)


def report(
    train: TFRecords,
    against: Sequence[TFRecords],
    removals: Sequence[Removal],
    result: dict[str, Any],
) -> str:
    """Return report.html: counts, thresholds, and the pairs, least alike first."""
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
        f"{result['kept']} kept, {result['unreadable']} did not decode (kept), "
        f"nor did {result['unreadable_against']} evaluation images. "
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

    encoded = feature_values(
        read_example(source.index(), record), source.features.image
    )[0]
    with Image.open(io.BytesIO(encoded)) as image:
        rgb = to_eight_bits(image).convert("RGB")
    rgb.thumbnail((128, 128))
    buffer = io.BytesIO()
    rgb.save(buffer, "JPEG", quality=80)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='' src='data:image/jpeg;base64,{text}'>"
