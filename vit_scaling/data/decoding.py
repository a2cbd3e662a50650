"""Decode records into uint8 images and labels; describe each bad record."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from vit_scaling import image_headers
from vit_scaling.data.image_data import ImageData
from vit_scaling.data.reading import BlockReader
from vit_scaling.data.record_files import CHECKSUM_FAILS

Batch = dict[str, tf.Tensor]
# uint8 image, seed (2,) → uint8 image
Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class Decoder:
    """Decodes chunks of records into images.

    Each chunk is decoded in a small dataset that ignores errors, so a bad image neither
    loses the chunk nor its own position in it.

    Args:
        data: The settings of the images and labels.
        blocks: Describes records in messages.
        record_seed: Maps a position in the run to a seed (2,).
        augment: Random changes of the uint8 image, or None.
    """

    data: ImageData
    blocks: BlockReader
    record_seed: Callable[[tf.Tensor], tf.Tensor]
    augment: Augment | None = None

    def decode(self, chunk: Batch) -> Batch:
        """Return `images` uint8, `labels` as text (see `pack_labels`), and `good`."""
        chunk = {
            "data": tf.gather(chunk["data"], chunk["rows"]),
            "number": chunk["number"],
            "position": chunk["position"],
        }
        if self.data.label_maps is not None:
            shards = self.blocks.shards_of(chunk["number"])
            chunk["label_map"] = tf.gather(self.data.label_maps.row_of_shard, shards)
        images, labels, good = self._decode_rows(chunk)
        reported = tf.cond(
            tf.reduce_all(good),
            lambda: tf.constant(True),
            lambda: self._report_bad_records(chunk, good),
        )
        with tf.control_dependencies([reported]):
            return {"images": images, "labels": tf.identity(labels), "good": good}

    def _decode_rows(self, chunk: Batch) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return images, labels and whether each row is good, in the chunk's order."""
        count, side = tf.size(chunk["data"]), self.data.image_size
        length = tf.cast(count, tf.int64)
        rows = tf.data.Dataset.from_tensor_slices((tf.range(count), chunk))
        # Filled with blanks, so that the number of elements is always the same.
        blank = tf.data.Dataset.from_tensors(
            (-1, tf.zeros([side, side, 3], "uint8"), "")
        )
        decoded = rows.map(self._decode_row).ignore_errors()
        decoded = decoded.concatenate(blank.repeat(length)).take(length).batch(length)
        decoded_rows, images, labels = decoded.get_single_element()
        images = tf.ensure_shape(images, [None, side, side, 3])

        def move_to_rows() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            places = tf.where(decoded_rows >= 0)[:, 0]
            place_of_row = tf.tensor_scatter_nd_update(
                tf.fill([count], length - 1),
                tf.gather(decoded_rows, places)[:, None],
                places,
            )
            good = tf.gather(decoded_rows, place_of_row) == tf.range(count)
            return (
                tf.gather(images, place_of_row),
                tf.gather(labels, place_of_row),
                good,
            )

        return tf.cond(
            decoded_rows[-1] == count - 1,
            lambda: (images, labels, tf.ones([count], tf.bool)),
            move_to_rows,
        )

    def _decode_row(
        self, row: tf.Tensor, record: Batch
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        encoded, stored = self._parse(record["data"])
        labels = self._map_labels(stored, record)
        is_valid = self._are_valid_labels(labels) & self._is_small(encoded)
        with tf.control_dependencies([tf.debugging.Assert(is_valid, ["bad"])]):
            seeds = tf.random.split(self.record_seed(record["position"]), 2)
        image = self.data.preprocess(encoded, self.data.image_size, seeds[0])
        if self.augment is not None:
            image = self.augment(image, seeds[1])
        return row, image, pack_labels(labels)

    def _parse(self, data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        keys = self.data.source.features
        spec = {
            keys.image: tf.io.FixedLenFeature([], tf.string, default_value=""),
            keys.label: tf.io.VarLenFeature(tf.int64),
        }
        parsed = tf.io.parse_single_example(data, spec)
        labels = parsed[keys.label].values + keys.label_offset
        return parsed[keys.image], labels

    def _map_labels(self, labels: tf.Tensor, record: Batch) -> tf.Tensor:
        """Map a set's class numbers by name; -1 for those that the set lacks."""
        if self.data.label_maps is None:
            return labels
        table = tf.constant(self.data.label_maps.table, tf.int64)
        last = table.shape[1] - 1
        known = (labels >= 0) & (labels < last)
        return tf.gather(table[record["label_map"]], tf.where(known, labels, last))

    def _are_valid_labels(self, labels: tf.Tensor) -> tf.Tensor:
        return tf.reduce_all((labels >= 0) & (labels < self.data.classes))

    def _is_small(self, encoded: tf.Tensor) -> tf.Tensor:
        height, width = image_headers.size_in_header(encoded)
        return image_headers.has_at_most_pixels(height, width, self.data.max_pixels)

    def _report_bad_records(self, chunk: Batch, good: tf.Tensor) -> tf.Tensor:
        """Raise for a chunk's first bad record, or log all of them."""
        rows = tf.where(~good)[:, 0]
        if self.data.on_bad_record == "stop":
            advice = (
                ". Fix or remove the record (vit-scaling data verify lists all), or "
                "bind on_bad_record='skip' to continue without it."
            )
            text = self._describe(chunk, rows[:1])[0]
            report = tf.debugging.Assert(False, [text + advice])
        else:
            texts = self._describe(chunk, rows)
            text = tf.strings.reduce_join(texts, separator="\n")
            report = tf.print("Skipped:", text)
        with tf.control_dependencies([report] if report is not None else []):
            return tf.constant(False)

    def _describe(self, chunk: Batch, rows: tf.Tensor) -> tf.Tensor:
        """Return the place and the fault of bad records, found by decoding again."""
        keys = self.data.source.features
        records = {name: tf.gather(values, rows) for name, values in chunk.items()}
        places = tf.map_fn(
            self.blocks.describe, records["number"], fn_output_signature=tf.string
        )
        is_small = _each_or(
            records,
            lambda record: self._is_small(self._parse(record["data"])[0]),
            tf.constant(True),
        )
        faults = _each_or(
            {**records, "is_small": is_small},
            self._fault_of_example,
            tf.constant(
                f"it is no tf.train.Example with the bytes feature {keys.image!r} and "
                f"the int64 feature {keys.label!r} (wrong keys or types? see "
                "`Features`)"
            ),
        )
        is_unreadable = tf.strings.length(records["data"]) == 0
        faults = tf.where(is_unreadable, f"{CHECKSUM_FAILS} or are cut off", faults)
        return tf.strings.join([places, faults], ": ")

    def _fault_of_example(self, record: Batch) -> tf.Tensor:
        encoded, stored = self._parse(record["data"])
        label_texts = tf.strings.as_string(stored)
        labels = self._map_labels(stored, record)
        keys, classes = self.data.source.features, self.data.classes
        faults = [
            (
                tf.strings.length(encoded) == 0,
                f"it has no image (0 bytes, or no feature {keys.image!r}: see "
                "`Features`)",
            ),
            (
                ~self._are_valid_labels(labels),
                f"a label is outside 0…{classes - 1} (`classes`={classes}); "
                "received " + tf.strings.reduce_join(label_texts, separator=", "),
            ),
            (
                ~record["is_small"],
                f"its image has more than `max_pixels`={self.data.max_pixels} pixels",
            ),
        ]
        fault = "its image cannot be decoded (want JPEG, PNG, GIF or BMP, undamaged)"
        for is_present, text in reversed(faults):
            fault = tf.where(is_present, text, fault)
        return fault


def _each_or(
    elements: Batch, function: Callable[[Batch], tf.Tensor], default: tf.Tensor
) -> tf.Tensor:
    """Return a function of each element, or `default` where it raises an error.

    All elements share one data set, because starting one takes half a second.
    """
    numbered = tf.data.Dataset.from_tensor_slices(elements).enumerate()
    results = numbered.map(lambda number, one: (number, function(one))).ignore_errors()
    count = tf.shape(next(iter(elements.values())))[:1]
    return results.reduce(
        tf.fill(count, default),
        lambda all_, one: tf.tensor_scatter_nd_update(all_, [[one[0]]], [one[1]]),
    )


def pack_labels(labels: tf.Tensor) -> tf.Tensor:
    """Return any number of labels as one text, so that images batch at a fixed shape.

    A dense row per image would take 118 kB for JFT's 29,593 classes.
    """
    return tf.strings.reduce_join(tf.strings.as_string(labels), separator=" ")


def unpack_labels(texts: tf.Tensor) -> tf.RaggedTensor:
    """Return the labels of a batch of texts: ragged int64 (batch, labels)."""
    return tf.strings.to_number(tf.strings.split(texts), tf.int64)


def replace_bad(batch: Batch) -> Batch:
    """Replace each bad image by the nearest good one before it, cyclically."""
    good = batch["good"]
    rows = tf.where(good, tf.range(tf.size(good)), -1)
    last_good = tf.scan(
        lambda previous, row: tf.where(row >= 0, row, previous),
        rows,
        initializer=tf.reduce_max(rows),
    )
    check = tf.debugging.Assert(
        tf.reduce_any(good), ["All records of a batch are bad: see the log above."]
    )
    with tf.control_dependencies([check] if check is not None else []):
        return {name: tf.gather(value, last_good) for name, value in batch.items()}
