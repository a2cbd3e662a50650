"""Sources of images: parse a command line's text; digits and existing records."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from vit_scaling.data.examples import (
    Features,
    Source,
    feature_values,
    parse_example,
    read_example,
)
from vit_scaling.data.record_index import RecordIndex
from vit_scaling.data.subsets import select_subset
from vit_scaling.data.tfds import TFDS
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.data.writing.image_entries import (
    Entry,
    EntrySource,
    ListedSource,
    Listing,
    SkippedFiles,
)
from vit_scaling.data.writing.image_files import CsvFile, Folder
from vit_scaling.data.writing.published_sets import PublishedSet
from vit_scaling.data.writing.source_names import PUBLISHED, check_source
from vit_scaling.data.writing.tar_files import TarFiles
from vit_scaling.naming import check_known


@dataclasses.dataclass(frozen=True)
class RecordImages(ListedSource):
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
        return self.source.class_names or self.listing.class_names

    def _list(self) -> Listing:
        """Return the records, in order; reads each once for its key and labels.

        Raises:
            ValueError: A record has no key or label, or a label without a class.
        """
        names, listing = self.source.class_names, Listing()
        largest = -1
        for number, key, labels, size in self._read_rows():
            largest = max(largest, *labels, -1)
            labels_text = self._name_labels(labels, number, largest)
            listing.use(Entry(key, labels_text, number, size))
        listing.class_names = names or tuple(map(str, range(largest + 1)))
        others = self._index.num_records - len(listing.entries)
        if others:
            listing.skipped["outside the subset"] = SkippedFiles(others)
        return listing

    def _name_labels(
        self, labels: list[int], number: int, largest: int
    ) -> tuple[str, ...]:
        """Return the classes of a record; `largest` is the largest label so far."""
        folder = os.path.dirname(self._index.locate(number)[0])
        names = self.source.class_names_by_folder[folder] or self.source.class_names
        count = len(names) if names else largest + 1
        wrong = [label for label in labels if not 0 <= label < count]
        if wrong:
            raise ValueError(
                f"{self._index.describe(number)}: labels must be in 0…{count - 1} "
                f"(the class names); received {wrong}. Fix the record, or give the "
                "set's `label_offset` (--label_offset)."
            )
        return tuple(names[label] if names else str(label) for label in labels)

    def read(self, entry: Entry) -> bytes:
        """Return the encoded image of a record."""
        example = read_example(self._index, entry.place)
        return feature_values(example, self.source.features.image)[0]

    def _read_rows(self) -> Iterator[tuple[int, str, list[int], int]]:
        """Yield the number, key, labels and size of every record to include."""
        features = self.source.features
        kept = None if self.keep is None else set(self.keep)
        for number, data in self._index.read_records():
            if kept is not None and number not in kept:
                continue
            try:
                example = parse_example(data)
                labels = features.labels(example)
                key = self._key(example, number)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{self._index.describe(number)}: {error}") from error
            yield number, key, labels, len(data)

    def _key(self, example: tf.train.Example, number: int) -> str:
        features = self.source.features
        if features.key != features.image:
            (key,) = feature_values(example, features.key)
            return key.decode()
        path, number_in_file = self._index.locate(number)
        return f"{path.rsplit('/', 1)[-1]}:{number_in_file}"


@dataclasses.dataclass(frozen=True)
class Digits(ListedSource):
    """scikit-learn's handwritten digits: 1,797 real images of 8×8, no download.

    Args:
        split: "test" (every fifth image, 359) or "train" (the other 1,438). Both
            contain all writers: this is a first example, not a benchmark.
        scale: Factor by which each image is enlarged in both directions.

    References: Alpaydin and Kaynak 1998, the UCI test set of optical digits.
    """

    split: str = "train"
    scale: int = 1

    def __post_init__(self) -> None:
        check_known("split", self.split, ("train", "test"))

    def class_names(self) -> tuple[str, ...]:
        """Return "0" to "9"."""
        return tuple("0123456789")

    def _list(self) -> Listing:
        wanted, listing = self.split == "test", Listing(class_names=self.class_names())
        for i, target in enumerate(_digits().target):
            if (i % 5 == 4) == wanted:
                listing.use(Entry(f"digits/{i:04d}.png", (str(target),), i, 200))
        return listing

    def read(self, entry: Entry) -> bytes:
        """Return the image as a grey PNG, its 17 levels spread over 0 to 255."""
        from PIL import Image

        levels = _digits().images[entry.place]
        pixels = np.round(levels * (255 / 16)).astype(np.uint8)
        pixels = pixels.repeat(self.scale, axis=0).repeat(self.scale, axis=1)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()


@functools.cache
def _digits() -> Any:
    from sklearn.datasets import load_digits  # pip install scikit-learn

    return load_digits()


_DEFAULT_FEATURES = Features()
_FILE_SOURCES = {"folder": Folder, "csv": CsvFile, "tar": TarFiles}


def parse_source(
    text: str,
    *,
    split: str,
    tfds_data_dir: str | None = None,
    fraction: float | None = None,
    num_images: int | None = None,
    features: Features = _DEFAULT_FEATURES,
) -> EntrySource:
    """Return the source of images that a text names.

    Args:
        text: One of the forms of `source_names.FORMS`.
        split: The split to write; also the split of digits and, by default, of TFDS.
        tfds_data_dir: TFDS' folder.
        fraction: Fraction of an existing set's records (tfds and tfrecords); subsets
            are nested.
        num_images: The same as a number of records.
        features: Keys of the records of tfrecords:.

    Raises:
        ValueError: The form is unknown, or an argument does not apply to it.
    """
    check_source(text)
    kind, _, rest = text.partition(":")
    is_subset = fraction is not None or num_images is not None
    if features != _DEFAULT_FEATURES and kind != "tfrecords":
        raise ValueError(
            "`features` (--image_key, --label_key, --key, --label_offset) are keys of "
            f"existing records, of tfrecords:; received source {text!r}."
        )
    if kind in ("tfds", "tfrecords"):
        records = _parse_records(kind, rest, split, tfds_data_dir, features)
        if not is_subset:
            return RecordImages(records)
        selected = select_subset(
            records.index(), records.features, fraction=fraction, num_images=num_images
        )
        if selected is None:
            return RecordImages(records)
        return RecordImages(records, tuple(selected.record_numbers().tolist()))
    if is_subset:
        raise ValueError(
            "`fraction` and `num_images` take a subset of a finished set "
            f"(tfds: or tfrecords:); received source {text!r}."
        )
    if text == "digits":
        return Digits(split)
    if kind in PUBLISHED:
        return PublishedSet(kind, rest)
    return _FILE_SOURCES[kind](rest)


def _parse_records(
    kind: str, rest: str, split: str, data_dir: str | None, features: Features
) -> Source:
    if kind == "tfrecords":
        return TFRecords(rest, features)
    name, _, tfds_split = rest.partition(":")
    return TFDS(name, tfds_split or split, data_dir)
