"""Report the removed near-duplicates: a list of all, and pairs of images to look at."""
# SPDX-License-Identifier: Apache-2.0

import base64
import csv
import heapq
import io
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image

from vit_scaling.data.deduplication.search import Removal, Search, read_image
from vit_scaling.data.examples import read_example
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing.image_checks import to_eight_bits
from vit_scaling.io_files import open_file, write_text

MAX_PAIRS = 200  # In the report; the list has all.
_TEMPLATE = pathlib.Path(__file__).with_suffix(".html")
_RECORD_COLUMNS = ("file", "record", "key")
_COLUMNS = (
    *_RECORD_COLUMNS,
    *(f"like_{name}" for name in _RECORD_COLUMNS),
    *("distance", "likeness"),
)


def removal_list_header() -> str:
    """Return the first line of removed.csv."""
    return _csv_text([_COLUMNS])


def format_removals(search: Search, removals: Iterable[Removal]) -> str:
    """Return lines of removed.csv: file, number and key of both images of each pair.

    Args:
        search: The sets.
        removals: The records to remove.
    """
    rows = []
    for removal in removals:
        original = search.dataset(removal.dataset), removal.original
        removed = _describe_record(search.train, removal.record)
        closeness = (removal.distance, f"{removal.likeness:.4f}")
        rows.append([*removed, *_describe_record(*original), *closeness])
    return _csv_text(rows)


def _csv_text(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


def read_exceptions(path: str) -> set[tuple[str, int]]:
    """Return the records of the rows of a removed.csv, as `name_record` names them.

    Raises:
        ValueError: The file lacks the columns `file` and `record`.
    """
    with open_file(path) as file:
        rows = csv.DictReader(io.StringIO(file.read().decode("utf-8-sig")))
    wanted = _RECORD_COLUMNS[:2]
    if not set(wanted) <= set(rows.fieldnames or ()):
        raise ValueError(
            f"`exceptions` must have the columns {' and '.join(wanted)}, as "
            f"removed.csv has; received {rows.fieldnames} in {path}."
        )
    return {name_record(row["file"], int(row["record"])) for row in rows}


def name_record(path: str, number: int) -> tuple[str, int]:
    """Return a name for a record that stays the same if its folder is moved."""
    return os.path.basename(path), number


def _describe_record(source: TFRecords, record: int) -> tuple[str, int, str]:
    """Return a record's file, its number in the file, and its key or ""."""
    index, key = source.index(), ""
    if source.features.key != source.features.image:
        values = read_example(index, record).features.feature[source.features.key]
        key = b"".join(values.bytes_list.value[:1]).decode("utf-8", "replace")
    return (*index.locate(record), key)


def find_least_alike(removals: Iterable[Removal]) -> list[Removal]:
    """Return the pairs to show: a wrong removal would be among the least alike."""
    return heapq.nsmallest(MAX_PAIRS, removals, key=lambda removal: removal.likeness)


def write_report(
    path: str,
    search: Search,
    removals: Sequence[Removal],
    result: Mapping[str, Any],
) -> None:
    """Write report.html: counts, thresholds, and pairs of images, least alike first.

    Args:
        path: Of the file.
        search: The sets.
        removals: The removed records.
        result: The content of deduplication.json.
    """
    import jinja2

    pairs = [
        {
            "removal": removal,
            "removed": _show_record(search.train, removal.record),
            "original": _show_record(search.dataset(removal.dataset), removal.original),
        }
        for removal in find_least_alike(removals)
    ]
    environment = jinja2.Environment(autoescape=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    write_text(path, template.render(result=result, pairs=pairs))


def _show_record(source: TFRecords, record: int) -> dict[str, str]:
    """Return a record's name and its image as base64 JPEG of at most 128 pixels."""
    with Image.open(io.BytesIO(read_image(source, record))) as image:
        rgb = to_eight_bits(image).convert("RGB")
    rgb.thumbnail((128, 128))
    buffer = io.BytesIO()
    rgb.save(buffer, "JPEG", quality=80)
    path, number = source.index().locate(record)
    return {
        "name": f"{os.path.basename(path)} {number}",
        "jpeg": base64.b64encode(buffer.getvalue()).decode(),
    }
