"""The records of a set: its interface, features, and parsing of examples."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import tensorflow as tf

from vit_scaling.data.record_index import RecordIndex


@dataclasses.dataclass(frozen=True)
class Features:
    """The keys of a `tf.train.Example`; the defaults are ImageNet's usual ones.

    Args:
        image: Key of the encoded JPEG, PNG, GIF or BMP: one bytes value.
        label: Key of the class indices: any number of int64 values.
        key: Key of the record's name, by which subsets are chosen: one bytes value. May
            be the key of `image`: then the image's bytes serve as its name.
        label_offset: Added to each stored label; -1 for sets that count from 1.
    """

    image: str = "image/encoded"
    label: str = "image/class/label"
    key: str = "image/filename"
    label_offset: int = 0

    def labels(self, example: tf.train.Example) -> list[int]:
        """Return the class indices of an example.

        Raises:
            ValueError: The example has no label feature.
            TypeError: The labels are not numbers.
        """
        return [n + self.label_offset for n in feature_values(example, self.label)]


def parse_example(data: bytes) -> tf.train.Example:
    """Parse a record.

    Raises:
        ValueError: The record is not a `tf.train.Example`.
    """
    try:
        return tf.train.Example.FromString(data)
    except Exception as error:  # protobuf's DecodeError, whose module differs.
        raise ValueError("it is no tf.train.Example") from error


def feature_values(example: tf.train.Example, key: str) -> Any:
    """Return the values of a feature: bytes, int64 or float.

    Raises:
        ValueError: The example has no such feature.
    """
    feature = example.features.feature.get(key)
    if feature is None or feature.WhichOneof("kind") is None:
        raise ValueError(
            f"A record has no feature {key!r}, but "
            f"{', '.join(sorted(example.features.feature))}; see `Features`."
        )
    return getattr(feature, feature.WhichOneof("kind")).value


def read_example(index: RecordIndex, record: int) -> tf.train.Example:
    """Read and parse one record of a set.

    Raises:
        ValueError: The record is damaged or not an example; the message names it.
    """
    try:
        return parse_example(index.read_record(record))
    except ValueError as error:
        raise ValueError(f"{index.describe(record)}: {error}.") from error


class Source(Protocol):
    """A set of records: `TFRecords` or `TFDS`."""

    @property
    def features(self) -> Features:
        """The keys of the records."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names in index order, if known; of several sets, their union."""

    @property
    def class_names_by_folder(self) -> Mapping[str, tuple[str, ...] | None]:
        """Class names of the files in each folder, by which their labels count."""

    def index(self, *, on_bad_record: str = "stop") -> RecordIndex:
        """Return the positions of all records."""
