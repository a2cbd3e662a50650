"""Records in, uint8 images and labels out; what is bad is named, never lost."""
# SPDX-License-Identifier: Apache-2.0

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from vit_scaling.data import preprocessing
from vit_scaling.data.examples import Features
from vit_scaling.data.reading import BlockReader

POLICIES = ("stop", "skip")
# encoded bytes, image size, seed (2,) → uint8 (size, size, 3)
Preprocess = Callable[[tf.Tensor, int, tf.Tensor], tf.Tensor]
# uint8 image, seed (2,) → uint8 image
Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

UNREADABLE = "its bytes fail their checksum or are cut off"
NOT_AN_EXAMPLE = (
    "it is no tf.train.Example with the bytes feature {image!r} and the int64 feature "
    "{label!r} (wrong keys or types? see `Features`)"
)
NO_IMAGE = "it has no image (0 bytes, or no feature {image!r}: see `Features`)"
BAD_LABEL = "a label is outside 0…{last} (`classes`={classes})"
TOO_LARGE = "its image has more than `max_pixels`={max_pixels} pixels"
UNDECODABLE = "its image cannot be decoded (want JPEG, PNG, GIF or BMP, undamaged)"


@dataclasses.dataclass(frozen=True)
class Decoder:
    """Turns chunks of records into images.

    A chunk's images are decoded in a small dataset of their own that ignores errors, so
    that one bad image costs neither the chunk nor its name.

    Args:
        blocks: Names records in messages.
        features: Keys of the examples.
        preprocess: From encoded bytes to a uint8 image.
        augment: Random changes of the uint8 image, or None.
        image_size: Side in pixels.
        classes: Number of classes.
        record_seed: From the position in the run to a seed (2,).
        on_bad_record: "stop" raises; "skip" marks the record as bad.
        max_pixels: Larger images are bad: memory stays bounded.
    """

    blocks: BlockReader
    features: Features
    preprocess: Preprocess
    augment: Augment | None
    image_size: int
    classes: int
    record_seed: Callable[[tf.Tensor], tf.Tensor]
    on_bad_record: str
    max_pixels: int

    def decode(self, chunk: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return `images` uint8, `labels` as text (see `pack`) and `good`."""
        chunk = {
            "data": tf.gather(chunk["data"], chunk["rows"]),
            "number": chunk["number"],
            "position": chunk["position"],
        }
        count = tf.size(chunk["data"])
        rows = tf.range(count)
        whole = tf.data.Dataset.from_tensor_slices((rows, chunk))
        side, length = self.image_size, tf.cast(count, tf.int64)
        # Filled up with blanks, so that the number of elements is always the same.
        blank = tf.data.Dataset.from_tensors(
            (-1, tf.zeros([side, side, 3], "uint8"), "")
        )
        found = whole.map(self._decode_row).ignore_errors()
        found = found.concatenate(blank.repeat(length)).take(length).batch(length)
        got, images, labels = found.get_single_element()
        images = tf.ensure_shape(images, [None, side, side, 3])

        def all_good() -> tuple[tf.Tensor, ...]:
            return images, labels, tf.ones([count], tf.bool)

        def some_bad() -> tuple[tf.Tensor, ...]:
            rows = tf.where(got >= 0)[:, 0]
            where = tf.tensor_scatter_nd_update(
                tf.fill([count], length - 1), tf.gather(got, rows)[:, None], rows
            )
            good = tf.gather(got, where) == tf.range(count)
            return tf.gather(images, where), tf.gather(labels, where), good

        images, labels, good = tf.cond(got[-1] == count - 1, all_good, some_bad)
        tell = tf.cond(
            tf.reduce_all(good),
            lambda: tf.constant(True),
            lambda: self._tell(chunk, good),
        )
        with tf.control_dependencies([tell]):
            return {"images": images, "labels": tf.identity(labels), "good": good}

    def _decode_row(
        self, row: tf.Tensor, record: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        encoded, labels = self._parse(record["data"])
        good = self._labels_are_right(labels) & self._is_small(encoded)
        with tf.control_dependencies([tf.debugging.Assert(good, ["bad"])]):
            seeds = tf.random.split(self.record_seed(record["position"]), 2)
        image = self.preprocess(encoded, self.image_size, seeds[0])
        if self.augment is not None:
            image = self.augment(image, seeds[1])
        return row, image, pack(labels)

    def _parse(self, data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        keys = self.features
        wanted = {
            keys.image: tf.io.FixedLenFeature([], tf.string, default_value=""),
            keys.label: tf.io.VarLenFeature(tf.int64),
        }
        parsed = tf.io.parse_single_example(data, wanted)
        return parsed[keys.image], parsed[keys.label].values + keys.label_offset

    def _labels_are_right(self, labels: tf.Tensor) -> tf.Tensor:
        return tf.reduce_all((labels >= 0) & (labels < self.classes))

    def _is_small(self, encoded: tf.Tensor) -> tf.Tensor:
        height, width = preprocessing.size_in_header(encoded)
        return preprocessing.has_at_most(height, width, self.max_pixels)

    def _tell(self, chunk: dict[str, tf.Tensor], good: tf.Tensor) -> tf.Tensor:
        """Name the bad records of a chunk: the first in an error, or all in a log."""
        rows = tf.where(~good)[:, 0]
        if self.on_bad_record == "stop":
            text = self._complaint(chunk, rows[0])
            advice = (
                ". Mend or remove the record (tools/verify_tfrecords.py lists all), or "
                "bind on_bad_record='skip' to go on without it."
            )
            stop = tf.debugging.Assert(False, [text + advice])
            with tf.control_dependencies([stop] if stop is not None else []):
                return tf.constant(False)
        texts = tf.map_fn(
            lambda row: self._complaint(chunk, row), rows, fn_output_signature=tf.string
        )
        told = tf.print("Skipped:", tf.strings.reduce_join(texts, separator="\n"))
        with tf.control_dependencies([told]):
            return tf.constant(False)

    def _complaint(self, chunk: dict[str, tf.Tensor], row: tf.Tensor) -> tf.Tensor:
        name = self.blocks.name(chunk["number"][row])
        return tf.strings.join([name, self._reason(chunk["data"][row])], ": ")

    def _reason(self, data: tf.Tensor) -> tf.Tensor:
        """Return what is wrong, by trying the steps again one after the other."""
        parsed = (
            tf.data.Dataset.from_tensors(data)
            .map(lambda one: self._faults(*self._parse(one)))
            .ignore_errors()
        )
        fault = parsed.reduce(self._text(NOT_AN_EXAMPLE), lambda _, text: text)
        unreadable = tf.strings.length(data) == 0
        return tf.where(unreadable, self._text(UNREADABLE), fault)

    def _faults(self, encoded: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        small = tf.data.Dataset.from_tensors(encoded).map(self._is_small)
        is_small = small.ignore_errors().reduce(True, lambda _, answer: answer)
        return tf.case(
            [
                (tf.strings.length(encoded) == 0, lambda: self._text(NO_IMAGE)),
                (~self._labels_are_right(labels), lambda: self._bad_label(labels)),
                (~is_small, lambda: self._text(TOO_LARGE)),
            ],
            default=lambda: self._text(UNDECODABLE),
        )

    def _bad_label(self, labels: tf.Tensor) -> tf.Tensor:
        found = tf.strings.reduce_join(tf.strings.as_string(labels), separator=", ")
        return tf.strings.join([self._text(BAD_LABEL), "; received ", found])

    def _text(self, template: str) -> tf.Tensor:
        return tf.constant(
            template.format(
                image=self.features.image,
                label=self.features.label,
                classes=self.classes,
                last=self.classes - 1,
                max_pixels=self.max_pixels,
            )
        )


def pack(labels: tf.Tensor) -> tf.Tensor:
    """Return any number of labels as one text, so that images batch at a fixed shape.

    A dense row per image would take 118 kB for JFT's 29,593 classes.
    """
    return tf.strings.reduce_join(tf.strings.as_string(labels), separator=" ")


def unpack(texts: tf.Tensor) -> tf.RaggedTensor:
    """Return the labels of a batch of texts: ragged int64 (batch, labels)."""
    return tf.strings.to_number(tf.strings.split(texts), tf.int64)


def replace_bad(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Put the nearest good image in front (cyclically) in the place of each bad one."""
    good = batch["good"]
    count = tf.size(good)
    rows = tf.range(count)
    last = tf.scan(
        lambda previous, here: tf.where(here >= 0, here, previous),
        tf.where(good, rows, -1),
        initializer=tf.reduce_max(tf.where(good, rows, -1)),
    )
    some = tf.debugging.Assert(
        tf.reduce_any(good), ["All records of a batch are bad: see the log above."]
    )
    with tf.control_dependencies([some] if some is not None else []):
        return {name: tf.gather(value, last) for name, value in batch.items()}
