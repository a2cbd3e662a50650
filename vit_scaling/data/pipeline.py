"""The input pipelines: from a source to preprocessed, batched, prefetched images."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence

import tensorflow as tf

from vit_scaling import image_preprocessing
from vit_scaling.argument_types import Fraction, PositiveInt
from vit_scaling.batch_distribution import without_tuning
from vit_scaling.data import (
    decoding,
    preprocessing,
    subsets,
    table_files,
    tf_data_service,
)
from vit_scaling.data.block_table import BlockTable
from vit_scaling.data.decoding import Augment, Batch, Decoder
from vit_scaling.data.epoch_order import ORDER_VERSION, EpochOrder
from vit_scaling.data.image_data import Host, ImageData, Preprocess
from vit_scaling.data.reading import (
    BlockReader,
    RecordStream,
    make_block_reader,
    without_autograph,
)
from vit_scaling.data.table_files import Arrays
from vit_scaling.data.tf_data_service import Chunk

# Decoded by one thread at a time; the dataset that is built for each takes as long as
# a twentieth of an image.
_CHUNK_RECORDS = 64
_BATCHES_AHEAD = 2
# images float32, labels, seed (2,) → images, labels
Mix = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainData(ImageData):
    """An endless stream of training batches, each a pure function of (seed, number).

    Args:
        source: `TFRecords` or `TFDS`.
        image_size: Side of the square images in pixels.
        classes: Number of classes: the width of the multi-hot labels.
        preprocess: Maps encoded bytes to a uint8 image.
        augment: Random changes of each uint8 image, e.g. `RandAugment()`, or None.
        mix: Random mixing of the images of a batch, e.g. `Mixup()`, or None.
        shuffle_window: Number of records shuffled with each other. Memory holds about
            three times as many encoded images; larger windows mix better.
        block_records: Neighbours in a file that are read together, into one window.
        read_ahead_bytes: Memory for the blocks that are read at the same time. Images
            per second times their bytes times twice a store's latency hide it.
        on_bad_record: "stop" raises with the file and record number. "skip" replaces
            the image by the last good one before it in the batch, logs it, and adds
            "skipped" to batches: float32 (batch,), 1 for replaced images.
        max_pixels: Images with more pixels are bad records.
        value_range: Values of pixels 0 and 255: two numbers, or two triples of red,
            green and blue.
        class_names: Names of the classes to which labels are mapped by name. None: the
            labels stay as they are.
        fraction: Fraction of the set to train on, chosen by a hash of each record's
            key, so that each subset is contained in every larger one; None is all.
        num_images: The same as a number of images.
        service: Addresses of tf.data service workers that decode, "HOST:PORT,…" (see
            tf_data_service.py); None decodes in this process. The batches are equal.

    Raises:
        ValueError: A number is below 1, `on_bad_record` is unknown, or an address of
            `service` has no port.
    """

    preprocess: Preprocess = dataclasses.field(
        default_factory=preprocessing.InceptionCrop
    )
    augment: Augment | None = None
    mix: Mix | None = None
    shuffle_window: PositiveInt = 2048
    fraction: Fraction | None = None
    num_images: PositiveInt | None = None
    service: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.service is not None:
            tf_data_service.parse_addresses(self.service)

    @functools.cached_property
    def selected(self) -> subsets.Subset | None:
        """The records to use; None is all."""
        if self.fraction is None and self.num_images is None:
            return None
        return subsets.select_subset(
            self.index,
            self.source.features,
            fraction=self.fraction,
            num_images=self.num_images,
        )

    def element_spec(self, batch_size: int | None) -> dict[str, tf.TensorSpec]:
        """Return shapes and types of one replica's batch; opens no file."""
        spec = self.image_spec(batch_size)
        if self.on_bad_record == "skip":
            spec["skipped"] = tf.TensorSpec([batch_size], tf.float32)
        return spec

    def dataset(
        self,
        *,
        batch_size: int,
        seed: int,
        start_step: int = 0,
        order_version: int = ORDER_VERSION,
        input_context: tf.distribute.InputContext | None = None,
    ) -> tf.data.Dataset:
        """Return batches `start_step`, `start_step` + 1, … of the run, without end.

        Args:
            batch_size: Images of all replicas together.
            seed: Seed of the run: equal seeds give equal batches, bit for bit.
            start_step: Number of batches already seen; any number costs the same.
            order_version: Version of the order; see `EpochOrder`.
            input_context: From `distribute_datasets_from_function`. Elements are the
                batches of this host's replicas, one after the other.

        Raises:
            ValueError: The batch cannot be divided among the replicas, or the set is
                smaller than the number of hosts.
        """
        host = Host.from_context(input_context)
        host_batch = host.local_batch_size(batch_size)
        table = self._nonempty_table(host)
        order = self._make_order(table, host, seed, order_version)

        def make_chunks(
            arrays: Arrays | None = None,
        ) -> tuple[tf.data.Dataset, Callable[[Chunk], Batch]]:
            stream, decoder = self._make_reader(table, order, arrays)
            start = start_step * host_batch
            chunks = stream.dataset(
                start=start, epochs=None, chunk_records=_CHUNK_RECORDS
            )
            return chunks, decoder.decode

        def finish(step: tf.Tensor, batch: Batch) -> Batch:
            return self._finish_batch(batch, order.batch_seed(step))

        if self.service is None:
            decoded = _decode_locally(*make_chunks())
        else:
            decoded = tf_data_service.decode_remotely(
                make_chunks,
                table_files.store_table(table),
                tf_data_service.parse_addresses(self.service),
            )
        batches = (
            decoded.rebatch(host_batch)
            .enumerate(start_step)
            .map(without_autograph(finish))
        )
        per_replica = host_batch // host.local_replicas
        if host.local_replicas > 1:
            batches = batches.rebatch(per_replica)
        batches = _with_static_shapes(batches, self.element_spec(per_replica))
        # With an unknown end, several workers look for it in each step, and batches
        # lose the static shapes that micro-batches need.
        endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        return without_tuning(batches.apply(endless).prefetch(_BATCHES_AHEAD))

    def make_stream_and_decoder(
        self, host: Host, seed: int, order_version: int = ORDER_VERSION
    ) -> tuple[RecordStream, Decoder]:
        """Return the record stream and the decoder of one host's batches."""
        table = self._nonempty_table(host)
        order = self._make_order(table, host, seed, order_version)
        return self._make_reader(table, order)

    def _nonempty_table(self, host: Host) -> BlockTable:
        table = self.block_table(host)
        if not table.num_records:
            raise ValueError(
                "The set must have at least an image per host; received "
                f"{self.num_examples} images for {host.count} hosts."
            )
        return table

    def _make_order(
        self, table: BlockTable, host: Host, seed: int, version: int
    ) -> EpochOrder:
        # A window of more blocks than there are would be filled with empty ones.
        window = min(table.num_blocks, self.shuffle_window // self.block_records)
        return EpochOrder(
            num_records=table.num_records,
            block_records=self.block_records,
            window_blocks=max(1, window),
            seed=seed,
            host=host.index,
            version=version,
        )

    def _make_reader(
        self, table: BlockTable, order: EpochOrder, arrays: Arrays | None = None
    ) -> tuple[RecordStream, Decoder]:
        blocks = make_block_reader(table, self.read_ahead_bytes, arrays)
        decoder = Decoder(self, blocks, order.record_seed, self.augment)
        return RecordStream(blocks, order), decoder

    def _finish_batch(self, batch: Batch, seed: tf.Tensor) -> Batch:
        good, skips = batch["good"], self.on_bad_record == "skip"
        if skips:
            batch = tf.cond(
                tf.reduce_all(good), lambda: batch, lambda: decoding.replace_bad(batch)
            )
        finished = _scale_and_encode(self, batch)
        if self.mix is not None:
            images, labels = self.mix(finished["images"], finished["labels"], seed)
            finished = {"images": images, "labels": labels}
        if skips:
            finished["skipped"] = 1.0 - tf.cast(good, tf.float32)
        return finished


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalData(ImageData):
    """Every image of a set once, in the order of the files.

    Args:
        source: `TFRecords` or `TFDS`.
        image_size: Side of the square images in pixels.
        classes: Number of classes: the width of the multi-hot labels.
        preprocess: Maps encoded bytes to a uint8 image.
        block_records: Neighbours in a file that are read together.
        read_ahead_bytes: Memory for the blocks that are read at the same time.
        on_bad_record: "stop" raises with the file and record number; "skip" logs it and
            masks the image out.
        max_pixels: Images with more pixels are bad records.
        value_range: Values of pixels 0 and 255: two numbers, or two triples of red,
            green and blue.
        class_names: Names of the classes to which labels are mapped by name. None: the
            labels stay as they are.
        beyond_fraction: Only the images that a `TrainData.fraction` of this leaves out:
            0.98 is the 2 % held out of a training set (App. D); None is all.

    Raises:
        ValueError: A number is below 1, or `on_bad_record` is unknown.
    """

    preprocess: Preprocess = dataclasses.field(
        default_factory=image_preprocessing.CentralCrop
    )
    beyond_fraction: Fraction | None = None

    @functools.cached_property
    def selected(self) -> subsets.Subset | None:
        """The records to use; None is all."""
        if self.beyond_fraction is None:
            return None
        return subsets.select_complement(
            self.index, self.source.features, fraction=self.beyond_fraction
        )

    def element_spec(self, batch_size: int | None) -> dict[str, tf.TensorSpec]:
        """Return shapes and types of one replica's batch; opens no file."""
        mask = tf.TensorSpec([batch_size], tf.float32)
        return {**self.image_spec(batch_size), "mask": mask}

    def dataset(
        self,
        *,
        batch_size: int,
        input_context: tf.distribute.InputContext | None = None,
    ) -> tf.data.Dataset:
        """Return all images once; "mask" is 0 for the padding of the last batches.

        Every host and replica gets the same number of batches, of the same shape.

        Args:
            batch_size: Images of all replicas together.
            input_context: From `distribute_datasets_from_function`.

        Raises:
            ValueError: The batch cannot be divided among the replicas.
        """
        host = Host.from_context(input_context)
        host_batch = host.local_batch_size(batch_size)
        longest = -(-self.num_examples // host.count)
        padded = -(-longest // host_batch) * host_batch
        table = self.block_table(host)
        chunks = self._padding(padded - table.num_records)
        if table.num_records:
            chunks = self._decode(table).concatenate(chunks)
        per_replica = host_batch // host.local_replicas
        batches = chunks.rebatch(per_replica).map(without_autograph(self._mask))
        batches = _with_static_shapes(batches, self.element_spec(per_replica))
        return without_tuning(batches.prefetch(_BATCHES_AHEAD))

    def _decode(self, table: BlockTable) -> tf.data.Dataset:
        blocks = BlockReader(table, self.read_ahead_bytes)
        order = EpochOrder(
            table.num_records, self.block_records, 1, seed=0, shuffle=False
        )
        chunks = RecordStream(blocks, order).dataset(
            start=0, epochs=1, chunk_records=_CHUNK_RECORDS
        )
        decoder = Decoder(self, blocks, order.record_seed)
        return _decode_locally(chunks, decoder.decode)

    def _padding(self, count: int) -> tf.data.Dataset:
        side = self.image_size
        blank = {
            "images": tf.zeros([1, side, side, 3], tf.uint8),
            "labels": tf.constant([""]),
            "good": tf.constant([False]),
        }
        return tf.data.Dataset.from_tensors(blank).repeat(count)

    def _mask(self, chunk: Batch) -> Batch:
        batch = _scale_and_encode(self, chunk)
        mask = tf.cast(chunk["good"], tf.float32)
        return {**batch, "labels": batch["labels"] * mask[:, None], "mask": mask}


def _scale_and_encode(data: ImageData, chunk: Batch) -> Batch:
    """Scale the pixels and encode the labels of decoded images."""
    images = preprocessing.scale_batch_pixels(chunk["images"], *data.value_range)
    labels = decoding.unpack_labels(chunk["labels"])
    return {"images": images, "labels": preprocessing.multi_hot(labels, data.classes)}


def _decode_locally(
    chunks: tf.data.Dataset, decode: Callable[[Chunk], Batch]
) -> tf.data.Dataset:
    # Not AUTOTUNE, which takes long to reach one thread per core.
    return chunks.map(
        without_autograph(decode),
        num_parallel_calls=os.cpu_count() or 1,
        deterministic=True,
    )


def _with_static_shapes(
    batches: tf.data.Dataset, spec: dict[str, tf.TensorSpec]
) -> tf.data.Dataset:
    def ensure_shapes(batch: Batch) -> Batch:
        return {name: tf.ensure_shape(batch[name], spec[name].shape) for name in spec}

    return batches.map(without_autograph(ensure_shapes))
