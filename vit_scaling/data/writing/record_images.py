"""The images of an existing set of records, to write into new shards."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
from typing import Any

import tensorflow as tf

from vit_scaling.data.examples import feature_values, parse_example, read_example
from vit_scaling.data.record_index import RecordIndex
from vit_scaling.data.sources import Source
from vit_scaling.data.writing.image_entries import Entry, PicklesFieldsOnly


@dataclasses.dataclass(frozen=True)
class RecordImages(PicklesFieldsOnly):
    """The images of a `TFRecords` or `TFDS` source.

    Args:
        source: The set.
        keep: Increasing record numbers to include; None is all.
    """

    source: Source
    keep: tuple[int, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "keep": None}  # `read` does not need it.

    @functools.cached_property
    def _index(self) -> RecordIndex:
        return self.source.index()

    def class_names(self) -> tuple[str, ...]:
        """Return the set's names, or the numbers 0 to the largest label."""
        names = self.source.class_names
        if names is not None:
            return names
        labels = [label for row in self._rows for label in row[2]]
        return tuple(str(number) for number in range(max(labels, default=-1) + 1))

    def entries(self) -> list[Entry]:
        """Return the records, in order; reads each once for its key and labels.

        Raises:
            ValueError: A record has no key or label, or a label without a class.
        """
        names = self.class_names()
        return [
            Entry(key, self._name_labels(names, labels, number), number, size)
            for number, key, labels, size in self._rows
        ]

    def _name_labels(
        self, names: tuple[str, ...], labels: list[int], number: int
    ) -> tuple[str, ...]:
        wrong = [label for label in labels if not 0 <= label < len(names)]
        if wrong:
            raise ValueError(
                f"{self._index.describe(number)}: labels must be in 0…{len(names) - 1} "
                f"(the class names); received {wrong}. Fix the record, or give the "
                "set's `label_offset` (--label_offset)."
            )
        return tuple(names[label] for label in labels)

    def read(self, entry: Entry) -> bytes:
        """Return the encoded image of a record."""
        example = read_example(self._index, entry.place)
        return feature_values(example, self.source.features.image)[0]

    @functools.cached_property
    def _rows(self) -> list[tuple[int, str, list[int], int]]:
        """The number, key, labels and size of every record to include."""
        features, rows = self.source.features, []
        kept = None if self.keep is None else set(self.keep)
        for number, data in self._index.read_records():
            if kept is not None and number not in kept:
                continue
            try:
                example = parse_example(data)
                labels = features.labels(example)
                rows.append((number, self._key(example, number), labels, len(data)))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{self._index.describe(number)}: {error}") from error
        return rows

    def _key(self, example: tf.train.Example, number: int) -> str:
        features = self.source.features
        if features.key != features.image:
            (key,) = feature_values(example, features.key)
            return key.decode()
        path, number_in_file = self._index.locate(number)
        return f"{path.rsplit('/', 1)[-1]}:{number_in_file}"
