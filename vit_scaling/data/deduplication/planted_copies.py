"""Measure the search for near-duplicates: plant altered copies, count those found."""
# SPDX-License-Identifier: Apache-2.0

import collections
import io
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from vit_scaling.data.deduplication import fingerprints
from vit_scaling.data.deduplication.matching import NearDuplicateIndex, Thresholds
from vit_scaling.data.writing.file_rules import IMAGE_SUFFIXES

# From an image to an altered one, which is re-encoded afterwards.
Alteration = Callable[[Image.Image, np.random.Generator], Image.Image]


def _resize(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    factor = generator.uniform(0.3, 1)
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height))


def _crop(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Cut off up to 10 % of the width and of the height, at a random place."""
    width, height = image.size
    kept = 1 - generator.uniform(0, 0.1, 2)
    new_width = max(1, round(width * kept[0]))
    new_height = max(1, round(height * kept[1]))
    left = int(generator.integers(0, width - new_width + 1))
    top = int(generator.integers(0, height - new_height + 1))
    return image.crop((left, top, left + new_width, top + new_height))


def _change_brightness(
    image: Image.Image, generator: np.random.Generator
) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(generator.uniform(0.8, 1.2))


def _add_text(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Write a line over the image, 5 to 10 % of its height, at a random place."""
    width, height = image.size
    size = max(5, height * generator.uniform(0.05, 0.1))
    place = generator.uniform(0, 0.3) * width, generator.uniform(0, 0.9) * height
    colour = ("white", "black", "red")[generator.integers(3)]
    written = image.copy()
    text = f"© photo {generator.integers(1000)}"
    ImageDraw.Draw(written).text(place, text, fill=colour, font_size=size)
    return written


def _add_border(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    width = max(1, round(min(image.size) * generator.uniform(0.03, 0.1)))
    colour = tuple(int(value) for value in generator.integers(0, 256, 3))
    return ImageOps.expand(image, width, colour)


def _add_caption(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Add a strip with text below the image, 8 to 15 % of its height."""
    width, height = image.size
    strip = max(1, round(height * generator.uniform(0.08, 0.15)))
    captioned = Image.new("RGB", (width, height + strip), "white")
    captioned.paste(image, (0, 0))
    text = f"Photo {generator.integers(1000)}: all rights reserved"
    pen = ImageDraw.Draw(captioned)
    pen.text((2, height), text, fill="black", font_size=max(4, 0.7 * strip))
    return captioned


ALTERATIONS: dict[str, Alteration] = {
    "re-encoded": lambda image, _: image,
    "resized": _resize,
    "cropped": _crop,
    "flipped": lambda image, _: ImageOps.mirror(image),
    "brighter or darker": _change_brightness,
    "grey": lambda image, _: image.convert("L"),
    "text over it": _add_text,
    "border": _add_border,
    "caption": _add_caption,
}


def alter_image(encoded: bytes, kind: str, generator: np.random.Generator) -> bytes:
    """Alter an image in one way; return a JPEG of quality 30 to 95."""
    with Image.open(io.BytesIO(encoded)) as image:
        rgb = fingerprints.to_rgb(image)
    buffer = io.BytesIO()
    quality = int(generator.integers(30, 96))
    ALTERATIONS[kind](rgb, generator).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def read_images(folder: str) -> list[tuple[str, bytes]]:
    """Return (path, bytes) of all image files below a folder, without links."""
    paths = [
        path
        for path in pathlib.Path(folder).rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_symlink()
    ]
    paths.sort(key=lambda path: (str(path.parent), path.name))
    return [(str(path), path.read_bytes()) for path in paths if path.is_file()]


def measure(
    images: Sequence[tuple[str, bytes]],
    *,
    copies: int,
    thresholds: Thresholds,
    seed: int = 0,
) -> dict[str, Any]:
    """Search for altered copies of one half of some images among the other half.

    Args:
        images: (key, encoded) of distinct images. A random half of them is the
            evaluation set.
        copies: Number of planted copies, distributed evenly over the alterations.
        thresholds: When two images are near-duplicates.
        seed: Of the halves and the alterations.

    Returns:
        `recall` by alteration: found, of (planted), share (found / of), and its 95 %
        interval low, high. `precision`: found copies among all removed images.
        `others`: the other removed images, to look at, since true duplicates in the set
        are among them. `missed`: the copies not found. `wrong_original`: number of
        copies that were matched with another image than their original.
    """
    generator = np.random.default_rng(seed)
    order, half = generator.permutation(len(images)), len(images) // 2
    evaluation = [images[i] for i in order[:half]]
    index = NearDuplicateIndex(
        [key for key, _ in evaluation],
        [fingerprints.fingerprint_evaluation_image(data) for _, data in evaluation],
        thresholds,
    )
    found, planted = collections.Counter[str](), collections.Counter[str]()
    missed, wrong_original = [], 0
    for number in range(copies):
        key, data = evaluation[number % half]
        kind = list(ALTERATIONS)[number % len(ALTERATIONS)]
        copy = alter_image(data, kind, generator)
        match = index.find(fingerprints.fingerprint_training_image(copy))
        planted[kind] += 1
        if match is None:
            missed.append([key, kind])
        else:
            found[kind] += 1
            wrong_original += match.key != key
    others = []
    for i in order[half:]:
        key, data = images[i]
        match = index.find(fingerprints.fingerprint_training_image(data))
        if match:
            others.append([key, match.key, match.distance, round(match.likeness, 4)])
    return {
        "images": len(images),
        "evaluation": half,
        "planted": copies,
        "recall": {
            kind: estimate_fraction(found[kind], planted[kind]) for kind in ALTERATIONS
        },
        "precision": estimate_fraction(found.total(), found.total() + len(others)),
        "others": others,
        "missed": missed,
        "wrong_original": wrong_original,
    }


def estimate_fraction(found: int, of: int) -> dict[str, float]:
    """Return a fraction and its 95 % score interval (Wilson 1927).

    >>> estimate = estimate_fraction(9, 10)
    >>> [round(estimate[key], 3) for key in ("share", "low", "high")]
    [0.9, 0.596, 0.982]
    """
    from scipy import stats  # Slow to import.

    if not of:
        return {"found": 0, "of": 0, "share": float("nan"), "low": 0.0, "high": 1.0}
    interval = stats.binomtest(found, of).proportion_ci(method="wilson")
    bounds = {"low": float(interval.low), "high": float(interval.high)}
    return {"found": found, "of": of, "share": found / of, **bounds}
