"""Count what a set holds, and draw contact sheets of it."""
# SPDX-License-Identifier: Apache-2.0

import collections
import math
import os
from typing import Any

import numpy as np
import tensorflow as tf

from vit_scaling.data.pipeline import MAX_PIXELS, EvalData, TrainData
from vit_scaling.data.preprocessing import CentralCrop
from vit_scaling.data.record_index import RecordIndex
from vit_scaling.data.writing.image_checks import check_image
from vit_scaling.data.writing.tfrecord_source import parsed, read_record, values

_CAPTION_PIXELS = 14
_NAMED = 100  # Of the records that cannot be used; all are counted.
_LABELS_SAMPLED = 10_000


def statistics(source: Any, *, sample: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """Return counts of a set's records, classes, formats and image sizes.

    What cannot be used is counted by its reason under "formats", and the first hundred
    are named, file and record, under "unusable". Checksums are not looked at:
    tools/verify_tfrecords.py does so.

    Args:
        source: `TFRecords` or `TFDS`.
        sample: At most so many records, drawn at random, are looked at.
        seed: Of the draw.
    """
    index, tally = source.index(on_bad_record="skip"), _Tally(source)
    numbers = _sampled(index, sample, seed)
    for number in numbers:
        tally.add(index, number)
    names = source.class_names or ()
    order = {name: place for place, name in enumerate(names)}
    return {
        "records": index.num_records,
        "shards": len(index.shards),
        "bytes": sum(int(tf.io.gfile.stat(s.path).length) for s in index.shards),
        "sampled": len(numbers),
        "labels_per_image": dict(sorted(tally.per_image.items())),
        "class_counts": dict(
            sorted(tally.classes.items(), key=lambda pair: order.get(pair[0], -1))
        ),
        "formats": dict(tally.formats.most_common()),
        "unusable": tally.unusable,
        "sizes": {name: _spread(found) for name, found in tally.sizes.items()},
    }


class _Tally:
    """Counts of the records looked at."""

    def __init__(self, source: Any) -> None:
        self._features, self._names = source.features, source.class_names or ()
        self.classes: collections.Counter[str] = collections.Counter()
        self.formats: collections.Counter[str] = collections.Counter()
        self.per_image: collections.Counter[int] = collections.Counter()
        self.sizes: dict[str, list[int]] = {"height": [], "width": [], "bytes": []}
        self.unusable: list[str] = []

    def add(self, index: RecordIndex, number: int) -> None:
        """Count a record; name it if it cannot be used."""
        try:
            self._count(parsed(read_record(index, number)))
        except (ValueError, TypeError, OSError) as error:  # Wrong keys and types too.
            self.formats[f"unusable: {error}"] += 1
            if len(self.unusable) < _NAMED:
                path, in_file = index.locate(number)
                self.unusable.append(f"{path}, record {in_file}: {error}")

    def _count(self, example: tf.train.Example) -> None:
        features, names = self._features, self._names
        labels = [n + features.label_offset for n in values(example, features.label)]
        self.per_image[len(labels)] += 1
        self.classes.update(names[n] if 0 <= n < len(names) else str(n) for n in labels)
        (encoded,) = values(example, features.image)
        image = check_image(encoded, max_pixels=MAX_PIXELS)
        self.formats[f"{image.format}, {image.channels} channels"] += 1
        sizes = (image.height, image.width, len(encoded))
        for found, value in zip(self.sizes.values(), sizes, strict=True):
            found.append(value)


def _sampled(index: RecordIndex, sample: int, seed: int) -> list[int]:
    numbers = np.arange(index.num_records)
    if sample < len(numbers):
        drawn = np.random.default_rng(seed).choice(numbers, sample, replace=False)
        numbers = np.sort(drawn)
    return [int(number) for number in numbers]


def _spread(found: list[int]) -> dict[str, int]:
    if not found:
        return {"min": 0, "median": 0, "max": 0}
    return {"min": min(found), "median": int(np.median(found)), "max": max(found)}


def write_sheets(
    source: Any, *, output_dir: str, images: int, image_size: int, seed: int
) -> list[str]:
    """Write contact.png (whole images) and augmented.png (as training sees them).

    Both show the same random images in the same order, labels below. Without class
    names, images with a label above those of a sample of the set are left out.
    """
    os.makedirs(output_dir, exist_ok=True)
    names = source.class_names
    classes = len(names) if names else _largest_label(source, seed) + 1
    options: dict[str, Any] = {
        "image_size": image_size,
        "classes": classes,
        "value_range": (0.0, 255.0),
        "on_bad_record": "skip",
    }
    count = min(images, EvalData(source, **options).num_examples)
    plain = TrainData(source, preprocess=CentralCrop(image_size), **options)
    paths = []
    for name, data in (("contact", plain), ("augmented", TrainData(source, **options))):
        batch = next(iter(data.dataset(batch_size=count, seed=seed)))
        labels = [
            ", ".join(names[n] if names else str(n) for n in np.flatnonzero(row))
            for row in batch["labels"].numpy()
        ]
        path = os.path.join(output_dir, f"{name}.png")
        draw_sheet(batch["images"].numpy().astype(np.uint8), labels, path)
        paths.append(path)
    return paths


def _largest_label(source: Any, seed: int) -> int:
    """Return the largest label of a sample, at most a million: it sizes a batch."""
    index, features = source.index(on_bad_record="skip"), source.features
    largest = 0
    for number in _sampled(index, _LABELS_SAMPLED, seed):
        try:
            labels = values(parsed(read_record(index, number)), features.label)
            largest = max(largest, *(n + features.label_offset for n in labels), 0)
        except (ValueError, TypeError, OSError):
            continue  # `statistics` names it.
    return min(largest, 10**6)


def draw_sheet(images: np.ndarray, labels: list[str], path: str) -> None:
    """Write images uint8 (count, side, side, 3) as a grid of captioned pictures."""
    from PIL import Image, ImageDraw

    count, side = images.shape[:2]
    columns = math.ceil(math.sqrt(count * 1.5))
    rows = math.ceil(count / columns)
    cell = (side + 4, side + 4 + _CAPTION_PIXELS)
    sheet = Image.new("RGB", (columns * cell[0], rows * cell[1]), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        row, column = divmod(place, columns)
        left, top = column * cell[0] + 2, row * cell[1] + 2
        sheet.paste(Image.fromarray(pixels), (left, top))
        shown = label if len(label) * 6 <= side else label[: side // 6 - 1] + "…"
        pen.text((left, top + side + 1), shown, fill="black")
    sheet.save(path)
