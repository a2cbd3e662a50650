"""Prepared TensorFlow Datasets as a source of records."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import os
from typing import Any

from etils import epath

from vit_scaling.data.examples import Features
from vit_scaling.data.record_index import RecordIndex, Shard


@dataclasses.dataclass(frozen=True)
class TFDS:
    """A split of a prepared TensorFlow dataset.

    The files that `download_and_prepare` wrote are read by position, like those of
    `TFRecords`, with the same exact order, subsets and hosts.

    Args:
        name: A name such as "fashion_mnist", or the path of a prepared directory (the
            one with dataset_info.json).
        split: A split such as "train", or a slice such as "train[:90%]".
        data_dir: TFDS' data folder if `name` is a name; None is TFDS' default.
        image_key: Key of the image; None takes the only image feature.
        label_key: Key of the label(s); None takes the only class label feature.

    Raises:
        FileNotFoundError: The dataset is not prepared.
        ValueError: It has several or no image or label features, its files are not
            TFRecords, or the split is unknown.
    """

    name: str
    split: str
    data_dir: str | None = None
    image_key: str | None = None
    label_key: str | None = None

    @functools.cached_property
    def _builder(self) -> Any:
        import tensorflow_datasets as tfds

        if (epath.Path(self.name) / "dataset_info.json").exists():
            return tfds.builder_from_directory(self.name)
        builder = tfds.builder(self.name, data_dir=self.data_dir)
        if not builder.is_prepared():
            raise FileNotFoundError(
                f"TFDS' {self.name!r} is not prepared in {builder.data_dir}; run "
                f"`tfds build {self.name}` or download_and_prepare() first."
            )
        return builder

    @property
    def split_sizes(self) -> dict[str, int]:
        """Number of records of each split."""
        splits = self._builder.info.splits
        return {name: int(split.num_examples) for name, split in splits.items()}

    @functools.cached_property
    def features(self) -> Features:
        """The keys of the image and of the label in the records."""
        import tensorflow_datasets as tfds

        features = self._builder.info.features
        image = self.image_key or _only_key(features, tfds.features.Image, "image_key")
        label = self.label_key or _only_key(
            features, tfds.features.ClassLabel, "label_key"
        )
        return Features(image=image, label=label, key=image)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the label feature, or None."""
        feature = self._builder.info.features[self.features.label]
        names = getattr(_element(feature), "names", None)
        return tuple(names) if names else None

    @property
    def class_names_by_folder(self) -> dict[str, tuple[str, ...] | None]:
        """The names of the label feature, for the folder of the files."""
        return {os.path.dirname(self.shards[0].path): self.class_names}

    @functools.cached_property
    def shards(self) -> tuple[Shard, ...]:
        """The files of the split, and the range of each that belongs to it."""
        builder = self._builder
        file_format = builder.info.file_format
        if file_format is not None and file_format.value != "tfrecord":
            raise ValueError(
                f"`name` must be a dataset prepared as tfrecord; {self.name!r} is "
                f"prepared as {file_format.value}. Prepare it with "
                "file_format='tfrecord'."
            )
        splits = list(builder.info.splits)
        if self.split.split("[")[0].strip() not in splits:
            raise ValueError(
                f"`split` must be one of {', '.join(splits)}, or a slice of one; "
                f"received {self.split!r}."
            )
        return tuple(
            Shard(
                str(part.filename),
                skip=part.skip,
                take=None if part.take == -1 else part.take,
                records=part.examples_in_shard,
            )
            for part in builder.info.splits[self.split].file_instructions
        )

    def index(self, *, on_bad_record: str = "stop") -> RecordIndex:
        """Return the positions of all records."""
        return RecordIndex(self.shards, on_bad_record=on_bad_record)


def _element(feature: Any) -> Any:
    """Return the element of a sequence feature, and any other feature itself."""
    return getattr(feature, "feature", feature)


def _only_key(features: Any, kind: type, argument: str) -> str:
    """Return the key of the only feature of a kind, or of a sequence of that kind."""
    keys = [key for key, item in features.items() if isinstance(_element(item), kind)]
    if len(keys) != 1:
        raise ValueError(
            f"`{argument}` must be given if a dataset has several or no features of "
            f"kind {kind.__name__}; received {keys} among {sorted(features)}."
        )
    return keys[0]
