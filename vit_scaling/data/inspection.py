"""Count what a set holds, and draw contact sheets of it."""
# SPDX-License-Identifier: Apache-2.0

import collections
import math
import os
from typing import Any

import numpy as np
import tensorflow as tf

from vit_scaling.data.checking import UnusableImage, check_image
from vit_scaling.data.pipeline import EvalData, TrainData
from vit_scaling.data.preprocessing import CentralCrop
from vit_scaling.data.records_in import read_example, values

_CAPTION_PIXELS = 14


def statistics(source: Any, *, sample: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """Return counts of a set's records, classes, formats and image sizes.

    Args:
        source: `TFRecords` or `TFDS`.
        sample: At most so many records, drawn at random, are looked at.
        seed: Of the draw.
    """
    index = source.index(on_bad_record="skip")
    numbers = np.arange(index.num_records)
    if sample < len(numbers):
        drawn = np.random.default_rng(seed).choice(numbers, sample, replace=False)
        numbers = np.sort(drawn)
    features, names = source.features, source.class_names
    classes: collections.Counter[str] = collections.Counter()
    formats: collections.Counter[str] = collections.Counter()
    per_image: collections.Counter[int] = collections.Counter()
    sizes: dict[str, list[int]] = {"height": [], "width": [], "bytes": []}
    for number in numbers:
        example = read_example(index, int(number))
        labels = [n + features.label_offset for n in values(example, features.label)]
        per_image[len(labels)] += 1
        known = len(names) if names else 0
        classes.update(names[n] if names and 0 <= n < known else str(n) for n in labels)
        encoded = values(example, features.image)[0]
        try:
            image = check_image(encoded, max_pixels=2**40)
        except UnusableImage as error:
            formats[f"unusable: {error}"] += 1
            continue
        formats[f"{image.format}, {image.channels} channels"] += 1
        for key, value in zip(
            sizes, (image.height, image.width, len(encoded)), strict=True
        ):
            sizes[key].append(value)
    order = {name: place for place, name in enumerate(names or ())}
    return {
        "records": index.num_records,
        "shards": len(index.shards),
        "bytes": sum(int(tf.io.gfile.stat(s.path).length) for s in index.shards),
        "sampled": len(numbers),
        "labels_per_image": dict(sorted(per_image.items())),
        "class_counts": dict(
            sorted(classes.items(), key=lambda pair: order.get(pair[0], -1))
        ),
        "formats": dict(formats.most_common()),
        "sizes": {name: _spread(found) for name, found in sizes.items()},
    }


def _spread(found: list[int]) -> dict[str, int]:
    if not found:
        return {"min": 0, "median": 0, "max": 0}
    return {"min": min(found), "median": int(np.median(found)), "max": max(found)}


def write_sheets(
    source: Any, *, output_dir: str, images: int, image_size: int, seed: int
) -> list[str]:
    """Write contact.png (whole images) and augmented.png (as training sees them).

    Both show the same random images in the same order, labels below.
    """
    os.makedirs(output_dir, exist_ok=True)
    names = source.class_names
    classes = len(names) if names else _largest_label(source) + 1
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


def _largest_label(source: Any) -> int:
    index, key = source.index(on_bad_record="skip"), source.features.label
    numbers = range(index.num_records)
    found = (max(values(read_example(index, n), key), default=0) for n in numbers)
    return max(found) + source.features.label_offset


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
