"""Maps from the classes of another set (A, R, ObjectNet) to the model's classes."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from etils import epath

from vit_scaling import io_files
from vit_scaling.argument_types import NonNegativeInt, PositiveInt


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """From a set's classes to groups of the model's classes.

    Attributes:
        groups: For each class of the set the corresponding classes of the model. Images
            of a class without corresponding classes do not count.
        classes: Number of the model's classes.
        restricted: Only the model's classes that are in some group compete for the
            prediction (the usual protocol of ImageNet-A, -R and ObjectNet); False: all.

    Raises:
        ValueError: A group names a class that the model does not have, or a class is in
            two groups.
    """

    groups: tuple[tuple[int, ...], ...]
    classes: int
    restricted: bool = True

    def __post_init__(self) -> None:
        """Check that each of the model's classes is in at most one group."""
        members = [number for group in self.groups for number in group]
        if not members:
            raise ValueError("`groups` must name at least one of the model's classes.")
        outside = [number for number in members if not 0 <= number < self.classes]
        if outside:
            raise ValueError(
                f"`groups` must name classes in 0…{self.classes - 1}; received "
                f"{outside[0]}."
            )
        if len(set(members)) != len(members):
            twice = next(n for n in members if members.count(n) > 1)
            raise ValueError(
                f"Class {twice} of the model is in two groups. Put each class into at "
                "most one."
            )

    @property
    def matrix(self) -> np.ndarray:
        """(set's classes, model's classes) float32, 1 where one counts as the other."""
        matrix = np.zeros((len(self.groups), self.classes), np.float32)
        for row, group in enumerate(self.groups):
            matrix[row, list(group)] = 1.0
        return matrix

    def hits(self, logits: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return which images count, and whether their top 1 and top 5 are correct.

        Args:
            logits: (batch, model's classes).
            labels: (batch, set's classes) multi-hot; any of several labels is right.

        Returns:
            `counted`, `top1` and `top5`, (batch,) bool. An image without a label, or
            of classes without a counterpart, does not count.
        """
        matrix = tf.constant(self.matrix)
        right = tf.linalg.matmul(labels, matrix) > 0  # (batch, model's classes)
        if self.restricted:
            allowed = tf.reduce_any(matrix > 0, axis=0)  # (model's classes,)
            logits = tf.where(allowed, logits, logits.dtype.min)
        five = min(5, int(self.matrix.sum()) if self.restricted else self.classes)
        best = tf.math.top_k(logits, five).indices  # (batch, five)
        found = tf.gather(right, best, batch_dims=1)  # (batch, five)
        counted = tf.reduce_any(right, axis=1)
        return {
            "counted": counted,
            "top1": found[:, 0] & counted,
            "top5": tf.reduce_any(found, axis=1) & counted,
        }


def same_classes(classes: PositiveInt) -> LabelMap:
    """Return the map of a set with the model's own classes (V2, Sketch, ReaL)."""
    return LabelMap(tuple((number,) for number in range(classes)), classes)


def competing(present: Sequence[NonNegativeInt], classes: PositiveInt) -> LabelMap:
    """Return the map of a set with the model's numbering, of which few are present.

    TFDS' `imagenet_a` and `imagenet_r` are such sets: labels of 1,000, images of 200.

    Args:
        present: The classes that the set has.
        classes: Number of the model's classes.
    """
    known = frozenset(int(number) for number in present)
    groups = tuple((n,) if n in known else () for n in range(classes))
    outside = sorted(known - set(range(classes)))
    if outside:
        raise ValueError(
            f"`present` must hold classes in 0…{classes - 1}; received {outside[0]}."
        )
    return LabelMap(groups, classes)


def class_names_of(source: Any) -> tuple[str, ...]:
    """Return the class names of a set on disk, in the order of its labels.

    Args:
        source: `TFRecords` or `TFDS`; of the former the lines of `classes.txt`, such as
            the names of the folders that were written.

    Raises:
        ValueError: The set has no class names.
    """
    if source.class_names is None:
        raise ValueError(
            f"`source` must have class names, from a classes.txt in their folder; "
            f"{source} has none. Write it with vit-scaling data write."
        )
    return tuple(source.class_names)


def by_name(set_names: Sequence[str], model_names: Sequence[str]) -> LabelMap:
    """Return the map of a set whose classes have the names of some of the model's.

    Such as the 200 folders of ImageNet-A and -R, named by WordNet numbers (n01498041),
    for a model whose classes are named so too (see `imagenet_wordnet_numbers`).

    Raises:
        ValueError: A name of the set is not a name of the model's.
    """
    numbers = {name: number for number, name in enumerate(model_names)}
    missing = [name for name in set_names if name not in numbers]
    if missing:
        raise ValueError(
            f"{len(missing)} classes of the set are not classes of the model, first "
            f"{missing[0]!r}; the model's first is {model_names[0]!r}. Use equal names."
        )
    groups = tuple((numbers[name],) for name in set_names)
    return LabelMap(groups, len(model_names))


def objectnet(
    mappings: epath.PathLike, folders: Sequence[str], *, classes: int = 1000
) -> LabelMap:
    """Return ObjectNet's map, read from the `mappings` folder that comes with the set.

    Its four files are not part of this package. They lead from a folder's name to the
    object's name, from there to the names of ImageNet classes ("; " between several),
    to lines of a list, to the numbers of the 1,000 classes. 113 of its 313 classes have
    a counterpart; the images of the others do not count.

    Args:
        mappings: Folder of `folder_to_objectnet_label.json`,
            `objectnet_to_imagenet_1k.json`, `imagenet_to_label_2012_v2` and
            `pytorch_to_imagenet_2012_id.json`.
        folders: Names of the image folders in the order of the set's labels.
        classes: Number of the model's classes.

    Raises:
        FileNotFoundError: One of the files is missing.
        ValueError: The files do not fit together, or a folder is unknown.
    """
    path = epath.Path(mappings)
    to_object = io_files.read_json(path / "folder_to_objectnet_label.json")
    to_imagenet = io_files.read_json(path / "objectnet_to_imagenet_1k.json")
    to_line = io_files.read_json(path / "pytorch_to_imagenet_2012_id.json")
    lines = (path / "imagenet_to_label_2012_v2").read_text().splitlines()
    number_of_line = {int(line): int(number) for number, line in to_line.items()}
    number_of_name = {
        name.strip(): number_of_line[line]
        for line, name in enumerate(lines)
        if line in number_of_line
    }
    groups = []
    for folder in folders:
        if folder not in to_object:
            raise ValueError(
                f"{folder!r} is no folder of ObjectNet; known are {len(to_object)}, "
                f"such as {next(iter(to_object))!r}."
            )
        names = to_imagenet.get(to_object[folder])
        members = names.split("; ") if names else []
        unknown = [name for name in members if name not in number_of_name]
        if unknown:
            raise ValueError(
                f"imagenet_to_label_2012_v2 has no class {unknown[0]!r}, which "
                f"{to_object[folder]!r} should be: the files are of different versions."
            )
        groups.append(tuple(number_of_name[name] for name in members))
    return LabelMap(tuple(groups), classes)
