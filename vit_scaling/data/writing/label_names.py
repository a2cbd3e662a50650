"""Class names, in index order, from names of folders or labels in files."""
# SPDX-License-Identifier: Apache-2.0

import re
from collections.abc import Collection

from vit_scaling.data.writing.image_entries import check_utf8

_MAX_CLASSES = 10**6
_INTEGER = re.compile(r"0|[1-9][0-9]*")
_OTHER_NUMBER = re.compile(r"[+-][0-9.]+|[0-9]+\.[0-9]*|[0-9.]+[eE][+-]?[0-9]+")


def sort_names(names: Collection[str]) -> tuple[str, ...]:
    """Return names of classes in index order: as numbers if all are integers."""
    if all(_INTEGER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def name_labels(labels: Collection[str], where: str) -> tuple[str, ...]:
    """Return the class names, in index order, of labels written in a file.

    If all labels are integers, they are class indices, and the names are "0" to the
    largest. Otherwise they are names, sorted.

    Args:
        labels: The distinct labels.
        where: The file, for messages.

    Raises:
        ValueError: The labels are numbers but no indices; or some are names and an
            integer would not be the index of its own class.
    """
    for label in labels:
        check_utf8(label)
        is_large = _INTEGER.fullmatch(label) and int(label) >= _MAX_CLASSES
        if is_large or _OTHER_NUMBER.fullmatch(label):
            raise ValueError(
                f"{where}: the label {label!r} is not a class index. Use integers from "
                f"0 to {_MAX_CLASSES - 1}, or names that are not numbers."
            )
    names = sorted(labels)
    integers = [int(name) for name in names if _INTEGER.fullmatch(name)]
    if len(integers) == len(names):
        return tuple(str(number) for number in range(max(integers, default=-1) + 1))
    is_padded = all(re.fullmatch(r"[0-9]+", name) for name in names)
    if is_padded and len({len(name) for name in names}) == 1:
        return tuple(names)  # "01" to "10" are names; their order is their numbers'.
    for number in integers:
        if names[number : number + 1] != [str(number)]:
            other = next(name for name in names if not _INTEGER.fullmatch(name))
            raise ValueError(
                f"{where}: the label '{number}' is a class index or a name, because "
                f"others are names ({other!r}). Use indices for all labels, or names "
                "that are not integers."
            )
    return tuple(names)
