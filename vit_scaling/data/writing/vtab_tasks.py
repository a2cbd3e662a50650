"""The 19 tasks of VTAB-1k: 800 training, 200 validation and all test images.

Images come from TensorFlow Datasets' prepared sets, whose builders read the published
files. Splits and labels are those of the benchmark's code
(github.com/google-research/task_adaptation), so that results can be compared.

References: Zhai et al. 2019, "A Large-scale Study of Representation Learning with the
Visual Task Adaptation Benchmark".
"""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from vit_scaling.data.examples import feature_values, parse_example, read_example
from vit_scaling.data.tfds import TFDS
from vit_scaling.data.writing.image_entries import Entry, ListedSource, Listing
from vit_scaling.data.writing.split_writer import write_tfrecords
from vit_scaling.naming import check_known

GROUPS = ("natural", "specialized", "structured")
TRAIN_IMAGES, VAL_IMAGES = 800, 200
Label = Callable[[tf.train.Example], int]
Place = tuple[str, tuple[int, ...]]  # A split, and percents of it to skip.


@dataclasses.dataclass(frozen=True)
class Task:
    """A task: where its images are, and what is asked of them.

    Attributes:
        group: One of `GROUPS`.
        dataset: TFDS' name.
        classes: Number of classes.
        label: Feature of the label, or a function of a record.
        val: Where the validation images begin; the training images are the first ones
            of the split `train`.
        test: Where the test images begin; they reach to the split's end.
        brightness: Factor of the pixels.
    """

    group: str
    dataset: str
    classes: int
    label: str | Label = "label"
    val: Place = ("validation", ())
    test: Place = ("test", ())
    brightness: int = 1

    def find_label(self, example: tf.train.Example) -> int:
        """Return the class of a record."""
        if callable(self.label):
            return self.label(example)
        (number,) = feature_values(example, self.label)
        return int(number)


def _objects_of_clevr(example: tf.train.Example) -> int:
    return len(feature_values(example, "objects/size")) - 3


def _distance_in_clevr(example: tf.train.Example) -> int:
    depths = np.array(feature_values(example, "objects/pixel_coords"))[2::3]
    return _interval(depths.min(), (0.0, 8.0, 8.5, 9.0, 9.5, 10.0))


def _distance_in_kitti(example: tf.train.Example) -> int:
    """Return the class of the nearest car, van or truck; 3: there is none."""
    depths = np.array(feature_values(example, "objects/location"))[2::3]
    is_vehicle = np.array(feature_values(example, "objects/type")) < 3
    nearest = min([*depths[is_vehicle], 1000.0])
    return _interval(nearest, (-100.0, 8.0, 20.0, 999.0))


def _interval(value: float, starts: tuple[float, ...]) -> int:
    return int(np.flatnonzero(np.array(starts) < value).max())


def _bin_of(feature: str, values: int, bins: int) -> Label:
    """Return a function that puts neighbouring values of a feature together."""

    def label(example: tf.train.Example) -> int:
        (value,) = feature_values(example, feature)
        return int(value // (values / bins))

    return label


_THREE_PARTS: dict[str, Any] = {"val": ("train", (60,)), "test": ("train", (60, 20))}
_DSPRITES: dict[str, Any] = {
    "val": ("train", (80,)),
    "test": ("train", (80, 10)),
    "brightness": 255,  # The files' pixels are 0 and 1.
}
_NORB: dict[str, Any] = {"val": ("test", ()), "test": ("test", (50,))}
_CLEVR: dict[str, Any] = {"val": ("train", (90,)), "test": ("validation", ())}
# fmt: off
TASKS: dict[str, Task] = {
    "caltech101": Task("natural", "caltech101", 102, val=("train", (90,))),
    "cifar100": Task("natural", "cifar100", 100, val=("train", (90,))),
    "dtd": Task("natural", "dtd", 47),
    "oxford_flowers102": Task("natural", "oxford_flowers102", 102),
    "oxford_iiit_pet": Task("natural", "oxford_iiit_pet", 37, val=("train", (80,))),
    "sun397": Task("natural", "sun397/tfds", 397),
    "svhn": Task("natural", "svhn_cropped", 10, val=("train", (90,))),
    "patch_camelyon": Task("specialized", "patch_camelyon", 2),
    "eurosat": Task("specialized", "eurosat/rgb", 10, **_THREE_PARTS),
    "resisc45": Task("specialized", "resisc45", 45, **_THREE_PARTS),
    "diabetic_retinopathy": Task(
        "specialized", "diabetic_retinopathy_detection/btgraham-300", 5),
    "clevr_count": Task("structured", "clevr", 8, _objects_of_clevr, **_CLEVR),
    "clevr_distance": Task("structured", "clevr", 6, _distance_in_clevr, **_CLEVR),
    "dmlab": Task("structured", "dmlab", 6),
    "dsprites_location": Task(
        "structured", "dsprites", 16, _bin_of("label_x_position", 32, 16), **_DSPRITES),
    "dsprites_orientation": Task(
        "structured", "dsprites", 16, _bin_of("label_orientation", 40, 16),
        **_DSPRITES),
    "kitti_distance": Task("structured", "kitti", 4, _distance_in_kitti),
    "smallnorb_azimuth": Task("structured", "smallnorb", 18, "label_azimuth", **_NORB),
    "smallnorb_elevation": Task(
        "structured", "smallnorb", 9, "label_elevation", **_NORB),
}
# fmt: on


@dataclasses.dataclass(frozen=True)
class TaskImages(ListedSource):
    """The images of a task in a split of its TFDS set, with the task's labels.

    Args:
        task: Key of `TASKS`.
        split: TFDS' split, such as "train[:800]".
        data_dir: TFDS' folder; None is TFDS' default.

    Raises:
        FileNotFoundError: The set is not prepared.
    """

    task: str
    split: str
    data_dir: str | None = None

    def __post_init__(self) -> None:
        check_known("task", self.task, TASKS)

    @functools.cached_property
    def _source(self) -> TFDS:
        label = TASKS[self.task].label
        key = label if isinstance(label, str) else "image"
        name = TASKS[self.task].dataset
        return TFDS(name, self.split, self.data_dir, image_key="image", label_key=key)

    def class_names(self) -> tuple[str, ...]:
        """Return the set's names of the classes, or their numbers."""
        numbers = tuple(map(str, range(TASKS[self.task].classes)))
        return self._source.class_names or numbers

    def _list(self) -> Listing:
        names = self.class_names()
        listing = Listing(class_names=names)
        index = self._source.index()
        for number, data in index.read_records():
            try:
                label = TASKS[self.task].find_label(parse_example(data))
                if not 0 <= label < len(names):
                    raise ValueError(f"label {label} is not in 0…{len(names) - 1}")
            except ValueError as error:
                raise ValueError(f"{index.describe(number)}: {error}") from error
            key = f"{self.split}/{number:07d}"
            listing.use(Entry(key, (names[label],), number, len(data)))
        return listing

    def read(self, entry: Entry) -> bytes:
        """Return the encoded image of a record."""
        example = read_example(self._source.index(), entry.place)
        encoded: bytes = feature_values(example, "image")[0]
        return _brighten(encoded, TASKS[self.task].brightness)


def _brighten(encoded: bytes, factor: int) -> bytes:
    from PIL import Image

    if factor == 1:
        return encoded
    with Image.open(io.BytesIO(encoded)) as image:
        pixels = np.asarray(image) * np.uint8(factor)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def is_prepared(task: str, data_dir: str | None = None) -> bool:
    """Whether TFDS has prepared the set of a task."""
    try:
        return bool(TFDS(TASKS[task].dataset, "train", data_dir).split_sizes)
    except FileNotFoundError:
        return False


def find_splits(
    task: str,
    data_dir: str | None = None,
    *,
    train_images: int = TRAIN_IMAGES,
    val_images: int = VAL_IMAGES,
) -> dict[str, str]:
    """Return TFDS' slices of a task: `train`, `val` and `test`.

    Args:
        task: Key of `TASKS`.
        data_dir: TFDS' folder; None is TFDS' default.
        train_images: Number of training images.
        val_images: Number of validation images.
    """
    sizes = TFDS(TASKS[task].dataset, "train", data_dir).split_sizes
    (val, skip_val), (test, skip_test) = TASKS[task].val, TASKS[task].test
    first = sum(sizes[val] * percent // 100 for percent in skip_val)
    first_test = sum(sizes[test] * percent // 100 for percent in skip_test)
    return {
        "train": f"train[:{train_images}]",
        "val": f"{val}[{first}:{first + val_images}]",
        "test": f"{test}[{first_test}:]",
    }


def write_task(
    task: str, output_dir: str, data_dir: str | None = None, **images: int
) -> dict[str, str]:
    """Write the sets of a task as TFRecords, once; return their patterns.

    Args:
        task: Key of `TASKS`.
        output_dir: Folder of the sets.
        data_dir: TFDS' folder; None is TFDS' default.
        **images: `train_images` and `val_images` of `find_splits`.
    """
    splits = find_splits(task, data_dir, **images)
    for name, split in splits.items():
        source = TaskImages(task, split, data_dir)
        write_tfrecords(source, output_dir=output_dir, split=name)
    return {name: f"{output_dir}/{name}-*.tfrecord" for name in splits}
