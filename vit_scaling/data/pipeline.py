"""Source → shuffled, preprocessed, batched, prefetched dataset."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from vit_scaling.data import preprocessing, subsets
from vit_scaling.data.block_table import make_block_table
from vit_scaling.data.decoding import (
    POLICIES,
    Augment,
    Decoder,
    Preprocess,
    replace_bad,
    unpack,
)
from vit_scaling.data.epoch_order import EpochOrder
from vit_scaling.data.examples import Features
from vit_scaling.data.host_sharding import Hosts
from vit_scaling.data.key_hashes import read_key_hashes
from vit_scaling.data.reading import BlockReader, Reader, as_graph, block_reader
from vit_scaling.data.record_index import RecordIndex
from vit_scaling.data.tf_data_service import addresses, decode_elsewhere

_CHUNK_RECORDS = 16  # Decoded by one thread at a time.
_BATCHES_AHEAD = 2
MAX_PIXELS = 100_000_000  # 300 MB decoded.
# images float32, labels, seed (2,) → images, labels
Mix = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class Source(Protocol):
    """What `TrainData` and `EvalData` read from: `TFRecords` or `TFDS`."""

    @property
    def features(self) -> Features:
        """The keys of the records."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names in the order of the class indices, if known."""

    def index(self, *, on_bad_record: str = "stop") -> RecordIndex:
        """Return where the records lie."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Data:
    """What training and evaluation sets have in common."""

    source: Source = dataclasses.field(kw_only=False)
    image_size: int
    classes: int
    block_records: int = 16
    on_bad_record: str = "stop"
    max_pixels: int = MAX_PIXELS
    value_range: tuple[float, float] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        for name in ("image_size", "classes", "block_records", "max_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"`{name}` must be at least 1; received {getattr(self, name)}."
                )
        if self.on_bad_record not in POLICIES:
            raise ValueError(
                f"`on_bad_record` must be one of {', '.join(POLICIES)}; received "
                f"{self.on_bad_record!r}."
            )

    @functools.cached_property
    def _index(self) -> RecordIndex:
        names = self.source.class_names
        if names is not None and len(names) > self.classes:
            raise ValueError(
                "`classes` must cover the set's class names; received "
                f"classes={self.classes}, and {len(names)} names ({names[0]!r}, …)."
            )
        return self.source.index(on_bad_record=self.on_bad_record)

    def _decoder(
        self,
        blocks: BlockReader,
        order: EpochOrder,
        preprocess: Preprocess,
        augment: Augment | None,
    ) -> Decoder:
        return Decoder(
            blocks=blocks,
            features=self.source.features,
            preprocess=preprocess,
            augment=augment,
            image_size=self.image_size,
            classes=self.classes,
            record_seed=order.record_seed,
            on_bad_record=self.on_bad_record,
            max_pixels=self.max_pixels,
        )

    def _finish(self, chunk: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        images = preprocessing.value_range_at_once(chunk["images"], *self.value_range)
        labels = preprocessing.multi_hot(unpack(chunk["labels"]), self.classes)
        return {"images": images, "labels": labels}

    def _spec(self, batch_size: int | None) -> dict[str, tf.TensorSpec]:
        side = self.image_size
        return {
            "images": tf.TensorSpec([batch_size, side, side, 3], tf.float32),
            "labels": tf.TensorSpec([batch_size, self.classes], tf.float32),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainData(_Data):
    """An endless stream of training batches, each a pure function of (seed, number).

    Args:
        source: `TFRecords` or `TFDS`.
        image_size: Side of the square images in pixels.
        classes: Number of classes: the width of the multi-hot labels.
        preprocess: From encoded bytes to a uint8 image.
        augment: Random changes of each uint8 image, e.g. `RandAugment()`; None is none.
        mix: Random mixing of the images of a batch, e.g. `Mixup()`; None is none.
        shuffle_window: Records shuffled with each other; they are held in memory, as
            encoded, about three times over. Larger mixes better.
        block_records: Neighbours in a file that are read together, into one window.
        on_bad_record: "stop" raises with the file and record number. "skip" puts the
            last good image in front of it (in the batch) in its place, logs it, and
            batches have a third entry, "skipped": float32 (batch,), 1 where this was
            done, for counting.
        max_pixels: Images with more are bad records.
        value_range: What pixel values 0 and 255 become.
        fraction: Share of the set to train on, chosen by a hash of each record's key,
            so that each subset lies inside every larger one; None is all.
        num_images: The same, by number.
        service: Addresses of tf.data service workers that decode, "HOST:PORT,…" (see
            service.py); None decodes in this process. The batches are the same.

    Raises:
        ValueError: A number is below 1, `on_bad_record` is no policy, or an address of
            `service` has no port.
    """

    preprocess: Preprocess = dataclasses.field(
        default_factory=preprocessing.InceptionCrop
    )
    augment: Augment | None = None
    mix: Mix | None = None
    shuffle_window: int = 2048
    fraction: float | None = None
    num_images: int | None = None
    service: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.service is not None:
            addresses(self.service)

    @property
    def num_examples(self) -> int:
        """How many images an epoch has."""
        if self._selected is not None:
            return len(self._selected)
        return self._index.num_records

    @functools.cached_property
    def _selected(self) -> np.ndarray | None:
        if self.fraction is None and self.num_images is None:
            return None
        return subsets.select_subset(
            read_key_hashes(self._index, self.source.features),
            fraction=self.fraction,
            num_images=self.num_images,
        )

    def element_spec(self, batch_size: int | None) -> dict[str, tf.TensorSpec]:
        """Return shapes and types of one replica's batch; opens no file."""
        spec = self._spec(batch_size)
        if self.on_bad_record == "skip":
            spec["skipped"] = tf.TensorSpec([batch_size], tf.float32)
        return spec

    def dataset(
        self,
        *,
        batch_size: int,
        seed: int,
        start_step: int = 0,
        input_context: tf.distribute.InputContext | None = None,
    ) -> tf.data.Dataset:
        """Return batches `start_step`, `start_step` + 1, … of the run, without end.

        Args:
            batch_size: Images of all replicas together.
            seed: Of the run: the same one gives the same batches, bit for bit.
            start_step: How many batches have been seen; any number costs the same.
            input_context: From `distribute_datasets_from_function`. Elements are the
                batches of this host's replicas, one after the other.

        Raises:
            ValueError: The batch cannot be shared by the replicas, or the set is
                smaller than the number of hosts.
        """
        hosts = Hosts.of(input_context)
        host_batch = hosts.share(batch_size)
        order, reader, decoder = self.parts(hosts, seed)
        chunks = reader.dataset(
            start=start_step * host_batch, epochs=None, chunk_records=_CHUNK_RECORDS
        )
        batches = (
            self._images(chunks, decoder)
            .rebatch(host_batch)
            .enumerate(start_step)
            .map(as_graph(lambda step, batch: self._finish_batch(step, batch, order)))
        )
        per_replica = host_batch // hosts.local_replicas
        if hosts.local_replicas > 1:
            batches = batches.rebatch(per_replica)
        spec = self.element_spec(per_replica)
        batches = batches.map(as_graph(lambda batch: _ensure(batch, spec)))
        # Else several workers look out for an end in each step, and batches lose their
        # static shapes, which micro-batches need.
        endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        return batches.apply(endless).prefetch(_BATCHES_AHEAD)

    def _images(self, chunks: tf.data.Dataset, decoder: Decoder) -> tf.data.Dataset:
        if self.service is None:
            return _decoded(chunks, decoder)
        workers = addresses(self.service)
        return decode_elsewhere(chunks, decoder.decode, workers)

    def parts(self, hosts: Hosts, seed: int) -> tuple[EpochOrder, Reader, Decoder]:
        """Return what a host's batches are made with: order, reader and decoder."""
        table = make_block_table(
            self._index,
            block_records=self.block_records,
            selected=self._selected,
            part=hosts.number,
            parts=hosts.count,
        )
        if not table.num_records:
            raise ValueError(
                "The set must have at least an image per host; received "
                f"{self.num_examples} images for {hosts.count} hosts."
            )
        order = EpochOrder(
            num_records=table.num_records,
            block_records=self.block_records,
            window_blocks=max(1, self.shuffle_window // self.block_records),
            seed=seed,
            host=hosts.number,
        )
        blocks = block_reader(table)
        decoder = self._decoder(blocks, order, self.preprocess, self.augment)
        return order, Reader(blocks, order), decoder

    def _finish_batch(
        self, step: tf.Tensor, batch: dict[str, tf.Tensor], order: EpochOrder
    ) -> dict[str, tf.Tensor]:
        good = batch["good"]
        if self.on_bad_record == "skip":
            batch = tf.cond(
                tf.reduce_all(good), lambda: batch, lambda: replace_bad(batch)
            )
        done = self._finish(batch)
        if self.mix is not None:
            seed = order.batch_seed(step)
            done["images"], done["labels"] = self.mix(
                done["images"], done["labels"], seed
            )
        if self.on_bad_record == "skip":
            done["skipped"] = 1.0 - tf.cast(good, tf.float32)
        return done


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalData(_Data):
    """Every image of a set once, in the order of the files.

    Args:
        source: `TFRecords` or `TFDS`.
        image_size: Side of the square images in pixels.
        classes: Number of classes: the width of the multi-hot labels.
        preprocess: From encoded bytes to a uint8 image.
        block_records: Neighbours in a file that are read together.
        on_bad_record: "stop" raises with the file and record number; "skip" logs it and
            masks it out.
        max_pixels: Images with more are bad records.
        value_range: What pixel values 0 and 255 become.
        beyond_fraction: Only the images that a `TrainData.fraction` of this leaves out:
            0.98 is the 2 % held out of a training set (App. D); None is all.

    Raises:
        ValueError: A number is below 1, or `on_bad_record` is no policy.
    """

    preprocess: Preprocess = dataclasses.field(
        default_factory=preprocessing.CentralCrop
    )
    beyond_fraction: float | None = None

    @property
    def num_examples(self) -> int:
        """How many images the set has."""
        if self._selected is not None:
            return len(self._selected)
        return self._index.num_records

    @functools.cached_property
    def _selected(self) -> np.ndarray | None:
        if self.beyond_fraction is None:
            return None
        hashes = read_key_hashes(self._index, self.source.features)
        return subsets.select_complement(hashes, fraction=self.beyond_fraction)

    def element_spec(self, batch_size: int | None) -> dict[str, tf.TensorSpec]:
        """Return shapes and types of one replica's batch; opens no file."""
        mask = tf.TensorSpec([batch_size], tf.float32)
        return {**self._spec(batch_size), "mask": mask}

    def dataset(
        self,
        *,
        batch_size: int,
        input_context: tf.distribute.InputContext | None = None,
    ) -> tf.data.Dataset:
        """Return all images, once; "mask" is 0 where the last batches are padding.

        Every host and replica gets the same number of batches, of the same shape.

        Args:
            batch_size: Images of all replicas together.
            input_context: From `distribute_datasets_from_function`.

        Raises:
            ValueError: The batch cannot be shared by the replicas.
        """
        hosts = Hosts.of(input_context)
        host_batch = hosts.share(batch_size)
        longest = -(-self.num_examples // hosts.count)
        padded = -(-longest // host_batch) * host_batch
        table = make_block_table(
            self._index,
            block_records=self.block_records,
            selected=self._selected,
            part=hosts.number,
            parts=hosts.count,
        )
        chunks = self._padding(padded - table.num_records)
        if table.num_records:
            chunks = self._chunks(BlockReader(table), table.num_records).concatenate(
                chunks
            )
        per_replica = host_batch // hosts.local_replicas
        spec = self.element_spec(per_replica)
        return (
            chunks.rebatch(per_replica)
            .map(as_graph(lambda chunk: _ensure(self._finish_masked(chunk), spec)))
            .prefetch(_BATCHES_AHEAD)
        )

    def _chunks(self, blocks: BlockReader, records: int) -> tf.data.Dataset:
        order = EpochOrder(records, self.block_records, 1, seed=0, shuffle=False)
        decoder = self._decoder(blocks, order, self.preprocess, None)
        chunks = Reader(blocks, order).dataset(
            start=0, epochs=1, chunk_records=_CHUNK_RECORDS
        )
        return _decoded(chunks, decoder)

    def _padding(self, count: int) -> tf.data.Dataset:
        side = self.image_size
        nothing = {
            "images": tf.zeros([1, side, side, 3], tf.uint8),
            "labels": tf.constant([""]),
            "good": tf.constant([False]),
        }
        return tf.data.Dataset.from_tensors(nothing).repeat(count)

    def _finish_masked(self, chunk: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        done = self._finish(chunk)
        mask = tf.cast(chunk["good"], tf.float32)
        labels = done["labels"] * mask[:, None]
        return {"images": done["images"], "labels": labels, "mask": mask}


def _decoded(chunks: tf.data.Dataset, decoder: Decoder) -> tf.data.Dataset:
    # Not AUTOTUNE: it takes long to find out that every core has enough to do.
    return chunks.map(
        as_graph(decoder.decode),
        num_parallel_calls=os.cpu_count() or 1,
        deterministic=True,
    )


def _ensure(batch: dict[str, Any], spec: dict[str, tf.TensorSpec]) -> dict[str, Any]:
    return {name: tf.ensure_shape(batch[name], spec[name].shape) for name in spec}
