"""Count a set's records, classes, formats and sizes, and draw contact sheets."""
# SPDX-License-Identifier: Apache-2.0

import base64
import collections
import hashlib
import io
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from etils import epath

from vit_scaling.data.examples import Source, feature_values, parse_example
from vit_scaling.data.image_data import MAX_PIXELS
from vit_scaling.data.pipeline import EvalData, TrainData
from vit_scaling.data.record_files import file_size
from vit_scaling.data.record_index import RecordIndex
from vit_scaling.data.writing.image_checks import check_image
from vit_scaling.image_preprocessing import CentralCrop
from vit_scaling.io_files import write_text

_TEMPLATE = pathlib.Path(__file__).with_name("inspection.html")
_SHEET_TITLES = {"contact": "Random images", "augmented": "As training sees them"}
_CAPTION_PIXELS = 14
_MARGIN_PIXELS = 2
_UNUSABLE_NAMED = 100
_LABELS_SAMPLED = 10_000
_MAX_LABEL = 10**6


def compute_statistics(
    source: Source, *, sample: int = 10_000, seed: int = 0
) -> dict[str, Any]:
    """Return counts of a set's records, classes, formats and image sizes.

    Unusable records are counted by their reason under "formats"; the first hundred are
    named under "unusable".

    Args:
        source: `TFRecords` or `TFDS`.
        sample: Number of records to read, drawn at random; all if the set is smaller.
        seed: Seed of the draw.
    """
    index, statistics = source.index(on_bad_record="skip"), _Statistics(source)
    records = _draw_records(index, sample, seed)
    for record in records:
        statistics.add(index, record)
    order = {name: place for place, name in enumerate(source.class_names or ())}
    return {
        "records": index.num_records,
        "shards": len(index.shards),
        "bytes": sum(file_size(shard.path) for shard in index.shards),
        "sampled": len(records),
        "labels_per_image": dict(sorted(statistics.labels_per_image.items())),
        "class_counts": dict(
            sorted(statistics.classes.items(), key=lambda pair: order.get(pair[0], -1))
        ),
        "formats": dict(statistics.formats.most_common()),
        "duplicates": statistics.duplicates,
        "unusable": statistics.unusable,
        "sizes": {
            name: _summarize(values) for name, values in statistics.sizes.items()
        },
    }


class _Statistics:
    """Counts of the records read so far."""

    def __init__(self, source: Source) -> None:
        self._features = source.features
        self._names_by_folder = source.class_names_by_folder
        self.classes: collections.Counter[str] = collections.Counter()
        self.formats: collections.Counter[str] = collections.Counter()
        self.labels_per_image: collections.Counter[int] = collections.Counter()
        self.sizes: dict[str, list[int]] = {"height": [], "width": [], "bytes": []}
        self.duplicates = 0  # Encoded images equal to an earlier one.
        self.unusable: list[str] = []
        self._hashes: set[bytes] = set()

    def add(self, index: RecordIndex, record: int) -> None:
        """Count a record; name it if it is unusable."""
        try:
            folder = os.path.dirname(index.locate(record)[0])
            names = self._names_by_folder[folder] or ()
            self._count(parse_example(index.read_record(record)), names)
        except (ValueError, TypeError, OSError) as error:  # Wrong keys and types too.
            self.formats[f"unusable: {error}"] += 1
            if len(self.unusable) < _UNUSABLE_NAMED:
                self.unusable.append(f"{index.describe(record)}: {error}")

    def _count(self, example: tf.train.Example, names: Sequence[str]) -> None:
        labels = self._features.labels(example)
        self.labels_per_image[len(labels)] += 1
        self.classes.update(names[n] if 0 <= n < len(names) else str(n) for n in labels)
        (encoded,) = feature_values(example, self._features.image)
        image = check_image(encoded, max_pixels=MAX_PIXELS)
        self.formats[f"{image.format}, {image.channels} channels"] += 1
        self.sizes["height"].append(image.height)
        self.sizes["width"].append(image.width)
        self.sizes["bytes"].append(len(encoded))
        digest = hashlib.blake2b(encoded, digest_size=16).digest()
        self.duplicates += digest in self._hashes
        self._hashes.add(digest)


def _draw_records(index: RecordIndex, sample: int, seed: int) -> list[int]:
    """Return increasing numbers of records, drawn at random."""
    records = np.arange(index.num_records)
    if sample < len(records):
        drawn = np.random.default_rng(seed).choice(records, sample, replace=False)
        records = np.sort(drawn)
    return records.tolist()


def _summarize(values: list[int]) -> dict[str, int]:
    if not values:
        return {"min": 0, "median": 0, "max": 0}
    return {"min": min(values), "median": int(np.median(values)), "max": max(values)}


def write_sheets(
    source: Source, *, output_dir: str, images: int, image_size: int, seed: int
) -> list[str]:
    """Write contact.png (entire images) and augmented.png (as training sees them).

    Both show the same random images in the same order, with their labels. If the set
    has no class names, images with a label above those of a sample are left out.
    """
    folder = epath.Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    names = source.class_names
    options: dict[str, Any] = {
        "image_size": image_size,
        "classes": len(names) if names else _largest_label(source, seed) + 1,
        "value_range": (0.0, 255.0),
        "on_bad_record": "skip",
    }
    count = min(images, EvalData(source, **options).num_examples)
    sheets = {
        "contact": TrainData(source, preprocess=CentralCrop(image_size), **options),
        "augmented": TrainData(source, **options),
    }
    paths = []
    for name, data in sheets.items():
        batch = next(iter(data.dataset(batch_size=count, seed=seed)))
        labels = [
            ", ".join(names[n] if names else str(n) for n in np.flatnonzero(row))
            for row in batch["labels"].numpy()
        ]
        sheet = draw_sheet(batch["images"].numpy().astype(np.uint8), labels)
        path = folder / f"{name}.png"
        path.write_bytes(sheet)
        paths.append(str(path))
    return paths


def write_page(path: str, result: Mapping[str, Any], sheets: Sequence[str]) -> None:
    """Write the statistics and contact sheets as one HTML page.

    Args:
        path: Of the page.
        result: From `compute_statistics`.
        sheets: From `write_sheets`.
    """
    import jinja2

    files = {epath.Path(sheet).stem: epath.Path(sheet) for sheet in sheets}
    encoded = {
        _SHEET_TITLES[name]: base64.b64encode(file.read_bytes()).decode()
        for name, file in files.items()
    }
    environment = jinja2.Environment(autoescape=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(title="A set of images", result=result, sheets=encoded)
    write_text(path, page)


def _largest_label(source: Source, seed: int) -> int:
    """Return the largest label of a sample, bounded because it sizes a batch."""
    return min(max(_sample_labels(source, seed), default=0), _MAX_LABEL)


def _sample_labels(source: Source, seed: int) -> Iterator[int]:
    index = source.index(on_bad_record="skip")
    for record in _draw_records(index, _LABELS_SAMPLED, seed):
        try:
            example = parse_example(index.read_record(record))
            yield from (n for n in source.features.labels(example) if n >= 0)
        except (ValueError, TypeError, OSError):
            continue  # `compute_statistics` names it.


def draw_sheet(images: np.ndarray, labels: list[str]) -> bytes:
    """Return a PNG: a grid of images uint8 (count, side, side, 3) with captions."""
    from PIL import Image, ImageDraw

    count, side = images.shape[:2]
    columns = math.ceil(math.sqrt(count * 1.5))
    rows = math.ceil(count / columns)
    width = side + 2 * _MARGIN_PIXELS
    height = width + _CAPTION_PIXELS
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        row, column = divmod(place, columns)
        left, top = column * width + _MARGIN_PIXELS, row * height + _MARGIN_PIXELS
        sheet.paste(Image.fromarray(pixels), (left, top))
        caption = label if len(label) * 6 <= side else label[: side // 6 - 1] + "…"
        draw.text((left, top + side + 1), caption, fill="black")
    encoded = io.BytesIO()
    sheet.save(encoded, "png")
    return encoded.getvalue()
