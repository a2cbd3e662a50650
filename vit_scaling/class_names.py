"""Class names of sets and models: compared, and labels mapped by name."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import importlib.util
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from vit_scaling.naming import list_some


def map_by_name(
    names: Sequence[str], target: Sequence[str], *, source: str, reference: str
) -> tuple[int, ...]:
    """Return the index in `target` of each of `names`.

    Args:
        names: Class names of a set, in index order.
        target: Class names of the model, or of another set.
        source: What has `names`, for the error message.
        reference: What has `target`.

    Raises:
        ValueError: A name is not in `target`.

    Example:
        >>> map_by_name(["dog"], ["cat", "dog"], source="a", reference="b")
        (1,)
    """
    for given, owner in ((names, source), (target, reference)):
        repeated = [name for name, count in Counter(given).items() if count > 1]
        if repeated:
            raise ValueError(
                f"{owner} has a class name several times: {_quote(repeated)}. Rename "
                "the classes, so that labels can be mapped by name."
            )
    unknown = [name for name in names if name not in target]
    if unknown:
        raise ValueError(
            f"{source} has classes that {reference} does not have: "
            f"{_quote(unknown)} ({len(unknown)} of {len(names)}); {reference} has "
            f"{_quote(target)}. Use a set with the same classes, or leave these out."
        )
    index = {name: place for place, name in enumerate(target)}
    return tuple(index[name] for name in names)


def union(*several: Sequence[str]) -> tuple[str, ...]:
    """Return all names once, in the order in which they appear."""
    return tuple(dict.fromkeys(name for names in several for name in names))


def label_maps(
    by_folder: Mapping[str, Sequence[str] | None],
    target: Sequence[str],
    *,
    reference: str,
) -> dict[str, tuple[int, ...]]:
    """Return the index in `target` of each class, for each folder that has names.

    Args:
        by_folder: Class names of the files of each folder; None if it has none.
        target: Class names of the model, or of all folders.
        reference: What has `target`, for the error message.

    Raises:
        ValueError: A name is not in `target`.
    """
    return {
        folder: map_by_name(
            names, target, source=f"The set in {folder}", reference=reference
        )
        for folder, names in by_folder.items()
        if names
    }


def names_of(data: Any) -> tuple[str, ...]:
    """Return the class names of a set of images, or () if it has none."""
    mapped_to = getattr(data, "class_names", None)
    of_source = getattr(getattr(data, "source", None), "class_names", None)
    return tuple(mapped_to or of_source or ())


def with_class_names(
    data: Any, names: Sequence[str], *, source: str, reference: str
) -> Any:
    """Return evaluation data whose labels are those of `names`.

    Nothing changes where one side has no names, or both have the same.

    Args:
        data: An `EvalData`, or another set without a `source`.
        names: Class names of the model, in the order of its logits; may be empty.
        source: What `data` is, for messages.
        reference: What has `names`.

    Raises:
        ValueError: The set has a class that is not among `names`.
    """
    own = names_of(data)
    if not own or not names or own == tuple(names):
        return data
    map_by_name(own, names, source=source, reference=reference)
    logging.warning(
        "%s has other class numbers than %s: its labels are mapped by name.",
        source,
        reference,
    )
    return dataclasses.replace(data, class_names=tuple(names))


def imagenet_wordnet_numbers() -> tuple[str, ...]:
    """Return the WordNet numbers of ImageNet's 1,000 classes, in the usual order.

    They are read from the list that TensorFlow Datasets is installed with.
    """
    return _lines_of("datasets/imagenet2012/labels.txt")


def imagenet_validation_labels() -> tuple[str, ...]:
    """Return the WordNet numbers of ImageNet's 50,000 validation images, in order."""
    return _lines_of("datasets/imagenet2012/validation_labels.txt")


@functools.cache
def _lines_of(name: str) -> tuple[str, ...]:
    """Return the lines of a file that TensorFlow Datasets is installed with."""
    spec = importlib.util.find_spec("tensorflow_datasets")  # Importing it is slow.
    if spec is None or spec.origin is None:
        raise ImportError("This needs: pip install tensorflow-datasets")
    return tuple((pathlib.Path(spec.origin).parent / name).read_text().split())


def _quote(names: Sequence[str]) -> str:
    return list_some([*map(repr, names)])
