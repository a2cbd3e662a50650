"""Published weights by name: `published.csv`, and the default of each shape."""
# SPDX-License-Identifier: Apache-2.0

import csv
import dataclasses
import functools
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vit_scaling.naming import did_you_mean, list_some

IMAGENET = "imagenet"
# What "imagenet" stands for: ImageNet-21k, then 1,000 classes, at 224 pixels if
# published so. Of the other shapes nobody publishes a classifier of ImageNet.
IMAGENET_DEFAULTS = {
    "Ti/16": "augreg-ti16-224",
    "S/32": "augreg-s32-224",
    "S/16": "augreg-s16-224",
    "M/16": "deit3-m16-224-in21k",
    "B/32": "augreg-b32-224",
    "B/16": "augreg-b16-224",
    "B/8": "augreg-b8-224",
    "L/16": "augreg-l16-224",
    "L/14": "clip-l14-224-laion2b-in1k",
    "H/14": "deit3-h14-224-in21k",
    "So400m/14": "siglip-so400m14-378-in1k",
}


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """Weights that their authors publish: a row of `published.csv`.

    Sources have the form OWNER/NAME@REVISION:PATH, a file of a repository on GitHub.

    Attributes:
        name: Name that every argument for weights takes.
        authors_name: The authors' own name, accepted too, or "".
        shape: Shape, such as "B/16".
        image_size: Side of the images in pixels.
        classes: Classes of the classifier; 0 without one.
        licence: SPDX identifier of the weights' licence.
        top1: Published top-1 accuracy on ImageNet's validation set, in percent.
        evaluation: How the accuracy was measured: "classifier", "linear probe",
            "zero-shot" or "fine-tuned" (by other weights, made from these).
        address: Where the weights are: hf://, gs:// or augreg:.
        address_source: Source of the address, image size and classes.
        licence_source: Source of the licence.
        top1_source: Source of the accuracy.
    """

    name: str
    authors_name: str
    shape: str
    image_size: int
    classes: int
    licence: str
    top1: float
    evaluation: str
    address: str
    address_source: str
    licence_source: str
    top1_source: str


@functools.cache
def read_table() -> tuple[PublishedWeights, ...]:
    """Return all published weights, in the order of the table."""
    path = Path(__file__).with_name("published.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(_read_row(row) for row in csv.DictReader(file))


def _read_row(row: dict[str, Any]) -> PublishedWeights:
    numbers = {"image_size": int, "classes": int, "top1": float}
    return PublishedWeights(**row | {k: read(row[k]) for k, read in numbers.items()})


def list_weights(pattern: str = "*") -> list[PublishedWeights]:
    """Return the published weights whose name matches a pattern.

    Args:
        pattern: Shell pattern (*, ?, [abc]) of the name or the authors' name, in any
            case.

    Example:
        >>> [weights.name for weights in list_weights("mae-*")]
        ['mae-b16', 'mae-l16', 'mae-h14']
    """
    pattern = pattern.casefold()
    return [
        weights
        for weights in read_table()
        if fnmatchcase(weights.name.casefold(), pattern)
        or fnmatchcase(weights.authors_name.casefold(), pattern)
    ]


def find(source: str, shape: str | None = None) -> PublishedWeights | None:
    """Return the row that a name, or "imagenet" with a shape, stands for, if any.

    Raises:
        ValueError: "imagenet" has no default for the shape.
    """
    name = imagenet_default(shape) if source == IMAGENET else source
    rows = (w for w in read_table() if name in (w.name, w.authors_name or w.name))
    return next(rows, None)


@functools.cache
def addresses_by_name() -> dict[str, str]:
    """Return the address of every name and authors' name of the table."""
    table = read_table()
    names = {weights.name: weights.address for weights in table}
    return names | {w.authors_name: w.address for w in table if w.authors_name}


def imagenet_default(shape: str | None) -> str:
    """Return the name that "imagenet" stands for with a shape.

    Raises:
        ValueError: No shape is given, or no classifier of ImageNet is published for it.
    """
    if shape in IMAGENET_DEFAULTS:
        return IMAGENET_DEFAULTS[shape]
    if shape is None:
        raise ValueError(
            f"{IMAGENET!r} stands for weights of a given shape, and no shape is given. "
            f"Give a name, such as {list_some(list(IMAGENET_DEFAULTS.values()))} "
            "(`vit-scaling weights list`)."
        )
    others = [weights.name for weights in read_table() if weights.shape == shape]
    features = f"Without a classifier there are {list_some(others)}." if others else ""
    raise ValueError(
        f"No weights with ImageNet's classes are published for {shape!r}, only for "
        f"{', '.join(IMAGENET_DEFAULTS)}. {features}".rstrip()
    )


def suggest_name(name: str) -> str:
    """Return " Did you mean 'X'?" for a misspelt name, or how to list all names."""
    plain = re.sub(r"[^a-z0-9]", "", name.casefold())
    same = [n for n in addresses_by_name() if re.sub(r"\W", "", n.casefold()) == plain]
    if same:
        return f" Did you mean {same[0]!r}?"
    suggestion = did_you_mean(name, addresses_by_name(), count=5)
    return suggestion or " `vit-scaling weights list` lists all names."
