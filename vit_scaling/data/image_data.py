"""The settings that training and evaluation data have in common, and a host's part."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from vit_scaling.argument_types import PositiveInt, ValueRange, check_fields
from vit_scaling.checks import check_value_range
from vit_scaling.class_names import label_maps
from vit_scaling.data.block_table import BlockTable, make_block_table
from vit_scaling.data.examples import Source
from vit_scaling.data.reading import READ_AHEAD_BYTES
from vit_scaling.data.record_files import file_size
from vit_scaling.data.record_index import RecordIndex, Shard
from vit_scaling.data.subsets import Subset


@dataclasses.dataclass(frozen=True)
class Host:
    """One of several hosts, each of which reads its part of the data.

    Args:
        index: Number of this host, from 0.
        count: Number of hosts (input pipelines).
        replicas: Number of replicas of all hosts together.
    """

    index: int = 0
    count: int = 1
    replicas: int = 1

    @classmethod
    def from_context(cls, context: tf.distribute.InputContext | None) -> "Host":
        """Convert a strategy's input context; None is a single device."""
        if context is None:
            return cls()
        return cls(
            context.input_pipeline_id,
            context.num_input_pipelines,
            context.num_replicas_in_sync,
        )

    @property
    def local_replicas(self) -> int:
        """Number of replicas that this host feeds."""
        return self.replicas // self.count

    def local_batch_size(self, batch_size: int) -> int:
        """Return the number of images of a global batch that this host makes.

        Raises:
            ValueError: The batch cannot be divided among the replicas.
        """
        if batch_size < 1 or batch_size % self.replicas:
            raise ValueError(
                "`batch_size` must be a positive multiple of the number of replicas; "
                f"received batch_size={batch_size} for {self.replicas} replicas."
            )
        return batch_size // self.count


class LabelMaps(NamedTuple):
    """Maps from the class numbers in files to those of a set, by class name.

    Attributes:
        row_of_shard: Row of the table for each shard, int64 (shards,).
        table: New number of each class, int64 (maps, classes + 1); -1 for a number that
            has no class.
    """

    row_of_shard: np.ndarray
    table: np.ndarray


MAX_PIXELS = 100_000_000  # 300 MB decoded.
# encoded bytes, image size, seed (2,) → uint8 (size, size, 3)
Preprocess = Callable[[tf.Tensor, int, tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageData:
    """The settings and steps that training and evaluation data have in common."""

    source: Source = dataclasses.field(kw_only=False)
    image_size: PositiveInt
    classes: PositiveInt
    block_records: PositiveInt = 16
    read_ahead_bytes: PositiveInt = READ_AHEAD_BYTES
    on_bad_record: Literal["stop", "skip"] = "stop"
    max_pixels: PositiveInt = MAX_PIXELS
    value_range: ValueRange = (-1.0, 1.0)
    class_names: Sequence[str] | None = None
    preprocess: Preprocess

    def __post_init__(self) -> None:
        check_fields(self)
        check_value_range(self.value_range)

    @property
    def num_examples(self) -> int:
        """Number of images in an epoch."""
        return (self.selected or self.index).num_records

    @functools.cached_property
    def index(self) -> RecordIndex:
        """The positions of all records of the source."""
        names = self.source.class_names
        if names is not None and len(names) > self.classes:
            raise ValueError(
                "`classes` must cover the set's class names; received "
                f"classes={self.classes}, and {len(names)} names ({names[0]!r}, …)."
            )
        index = self.source.index(on_bad_record=self.on_bad_record)
        shards = index.shards if names is None else ()
        large = next((s for s in shards if (s.classes or 0) > self.classes), None)
        if large is not None:
            raise ValueError(
                f"`classes` must be at least {large.classes}, the number of classes in "
                f"the manifest of {large.path}; received {self.classes}."
            )
        return index

    def describe(self) -> str:
        """Return the number of images and a fingerprint of files, counts and classes.

        Sets that are equal have the same description wherever they are stored.
        """
        index = self.index
        content = [
            (os.path.basename(shard.path), shard.skip, int(count), _size_bytes(shard))
            for shard, count in zip(index.shards, index.counts, strict=True)
        ]
        names = dict.fromkeys(self.source.class_names_by_folder.values())
        text = json.dumps([content, *names])
        return (
            f"{index.num_records} images in {len(content)} files (fingerprint "
            f"{hashlib.sha256(text.encode()).hexdigest()[:12]})"
        )

    @functools.cached_property
    def label_maps(self) -> LabelMaps | None:
        """From the files' class numbers to those of the batches; None: the same.

        Raises:
            ValueError: The source has a class that is not in `class_names`.
        """
        target = self.class_names or self.source.class_names
        by_folder = self.source.class_names_by_folder
        if target is None or set(by_folder.values()) <= {tuple(target), None}:
            return None
        maps = label_maps(by_folder, target, reference="`class_names`")
        folders = [os.path.dirname(shard.path) for shard in self.index.shards]
        rows = [*maps.values()]
        table = np.full([len(rows), max(map(len, rows)) + 1], -1)
        for row, numbers in enumerate(rows):
            table[row, : len(numbers)] = numbers
        row_of = {folder: row for row, folder in enumerate(maps)}
        return LabelMaps(np.array([row_of[folder] for folder in folders]), table)

    @functools.cached_property
    def selected(self) -> Subset | None:
        """The records to use; None is all."""
        raise NotImplementedError

    def block_table(self, host: Host) -> BlockTable:
        """Return the blocks of one host's part of the records."""
        return make_block_table(
            self.index,
            block_records=self.block_records,
            selected=self.selected,
            part=host.index,
            parts=host.count,
        )

    def image_spec(self, batch_size: int | None) -> dict[str, tf.TensorSpec]:
        """Return shapes and types of a batch's images and labels."""
        side = self.image_size
        return {
            "images": tf.TensorSpec([batch_size, side, side, 3], tf.float32),
            "labels": tf.TensorSpec([batch_size, self.classes], tf.float32),
        }


def _size_bytes(shard: Shard) -> int | None:
    """Return a file's size, or None for TFDS' many files, which would take long."""
    if shard.size_bytes is None and shard.records is None:
        return file_size(shard.path)
    return shard.size_bytes
