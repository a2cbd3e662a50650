"""Measure de-duplication: plant altered copies, see which are found."""
# SPDX-License-Identifier: Apache-2.0

import io
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vit_scaling.data.deduplication import fingerprints
from vit_scaling.data.deduplication.matching import NearDuplicates, Thresholds
from vit_scaling.data.writing.image_checks import to_eight_bits
from vit_scaling.data.writing.image_entries import IMAGE_SUFFIXES

# Pillow image, random generator → altered Pillow image (re-encoded afterwards).
Alteration = Callable[[Any, np.random.Generator], Any]


def _resized(image: Any, generator: np.random.Generator) -> Any:
    factor = 2 ** generator.uniform(-1, 1)
    return image.resize([max(1, round(side * factor)) for side in image.size])


def _cropped(image: Any, generator: np.random.Generator) -> Any:
    """Cut up to 10 % of each side off, in all, at a random place."""
    width, height = image.size
    keep = 1 - generator.uniform(0, 0.1, 2)
    wide, high = max(1, round(width * keep[0])), max(1, round(height * keep[1]))
    left = int(generator.integers(0, width - wide + 1))
    top = int(generator.integers(0, height - high + 1))
    return image.crop((left, top, left + wide, top + high))


def _toned(image: Any, generator: np.random.Generator) -> Any:
    from PIL import ImageEnhance

    bright = ImageEnhance.Brightness(image).enhance(generator.uniform(0.7, 1.3))
    return ImageEnhance.Contrast(bright).enhance(generator.uniform(0.7, 1.3))


def _flipped(image: Any, generator: np.random.Generator) -> Any:
    from PIL import ImageOps

    del generator
    return ImageOps.mirror(image)


def _bordered(image: Any, generator: np.random.Generator) -> Any:
    from PIL import ImageOps

    width = max(1, round(min(image.size) * generator.uniform(0.03, 0.1)))
    colour = tuple(int(value) for value in generator.integers(0, 256, 3))
    return ImageOps.expand(image, width, colour)


def _captioned(image: Any, generator: np.random.Generator) -> Any:
    """Add a strip with text below the image, 8 to 15 % of its height."""
    from PIL import Image, ImageDraw

    width, height = image.size
    strip = max(1, round(height * generator.uniform(0.08, 0.15)))
    sheet = Image.new("RGB", (width, height + strip), "white")
    sheet.paste(image, (0, 0))
    text = f"Photo {generator.integers(1000)}: all rights reserved"
    pen = ImageDraw.Draw(sheet)
    pen.text((2, height), text, fill="black", font_size=max(4, 0.7 * strip))
    return sheet


def _same(image: Any, generator: np.random.Generator) -> Any:
    del generator
    return image


ALTERATIONS: dict[str, Alteration] = {
    "re-encoded": _same,
    "resized": _resized,
    "cropped": _cropped,
    "brightness, contrast": _toned,
    "flipped": _flipped,
    "border": _bordered,
    "caption": _captioned,
}


def altered(encoded: bytes, kind: str, generator: np.random.Generator) -> bytes:
    """Return a JPEG of quality 40 to 95 of an image altered in one way."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as image:
        layer = to_eight_bits(image).convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        rgb = Image.alpha_composite(white, layer).convert("RGB")
    buffer = io.BytesIO()
    quality = int(generator.integers(40, 96))
    ALTERATIONS[kind](rgb, generator).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927).

    >>> [round(bound, 3) for bound in wilson(9, 10)]
    [0.596, 0.982]
    """
    if not trials:
        return 0.0, 1.0
    z, share = 1.959964, hits / trials
    middle = share + z**2 / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    below = 1 + z**2 / trials
    return max(0.0, (middle - spread) / below), min(1.0, (middle + spread) / below)


def images_below(folder: str) -> list[tuple[str, bytes]]:
    """Return (path, bytes) of all image files below a folder, links left out."""
    found = []
    for place, _, files in sorted(os.walk(folder)):
        for name in sorted(files):
            path = os.path.join(place, name)
            if name.lower().endswith(IMAGE_SUFFIXES) and not os.path.islink(path):
                with open(path, "rb") as file:
                    found.append((path, file.read()))
    return found


def measure(
    images: Sequence[tuple[str, bytes]],
    *,
    copies: int,
    thresholds: Thresholds,
    seed: int = 0,
) -> dict[str, Any]:
    """Plant copies of one half of distinct images into the other, and look for them.

    Args:
        images: (key, encoded) of distinct images; the first half, in a random order,
            plays the evaluation set.
        copies: How many are planted, spread evenly over the kinds.
        thresholds: Of the search.
        seed: Of the order and the alterations.

    Returns:
        `recall` by kind: found, planted, share, low, high. `precision`: found planted
        copies over all that was removed; `others`: the pairs removed besides (to look
        at: true repeats of the set are among them). `wrong_original`: copies found for
        the sake of another image.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(images))
    half = len(images) // 2
    evaluation = [images[i] for i in order[:half]]
    index = NearDuplicates(
        [key for key, _ in evaluation],
        [fingerprints.of_evaluation(data) for _, data in evaluation],
        thresholds,
    )
    kinds = list(ALTERATIONS)
    found, planted, wrong = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0), 0
    missed = []
    for number in range(copies):
        key, data = evaluation[number % half]
        kind = kinds[number % len(kinds)]
        copy = altered(data, kind, generator)
        match = index.match(fingerprints.of_training(copy))
        planted[kind] += 1
        found[kind] += match is not None
        wrong += match is not None and match.key != key
        if match is None:
            missed.append([key, kind])
    others = []
    for i in order[half:]:
        key, data = images[i]
        match = index.match(fingerprints.of_training(data))
        if match:
            others.append([key, match.key, match.distance, round(match.likeness, 4)])
    hits = sum(found.values())
    return {
        "images": len(images),
        "evaluation": half,
        "planted": copies,
        "recall": {kind: _share(found[kind], planted[kind]) for kind in kinds},
        "precision": _share(hits, hits + len(others)),
        "others": others,
        "missed": missed,
        "wrong_original": wrong,
    }


def _share(hits: int, trials: int) -> dict[str, float]:
    low, high = wilson(hits, trials)
    share = hits / trials if trials else float("nan")
    return {"found": hits, "of": trials, "share": share, "low": low, "high": high}
