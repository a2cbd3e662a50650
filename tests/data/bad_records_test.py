"""What is bad is named with its file and record number; the policy decides."""
# SPDX-License-Identifier: Apache-2.0

import io
import pathlib
import re
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.data import sets
from vit_scaling.data.examples import Features
from vit_scaling.data.pipeline import EvalData, TrainData
from vit_scaling.data.tfrecords import TFRecords
from vit_scaling.image_preprocessing import Resize

GOOD = 11


def bomb(side: int = 60_000) -> bytes:
    """A PNG that says it has 60,000 by 60,000 pixels and has almost no data."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def jpeg_bomb() -> bytes:
    """A JPEG whose header says 60,000 by 60,000."""
    data = sets.jpeg(sets.tile(0))
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", 60_000, 60_000) + data[at + 4 :]


def wrong_type() -> bytes:
    floats = tf.train.Feature(float_list=tf.train.FloatList(value=[1.0]))
    feature = {"image/class/label": floats}
    example = tf.train.Example.FromString(sets.example(sets.jpeg(sets.tile(0)), [0]))
    example.features.feature["image/class/label"].CopyFrom(feature["image/class/label"])
    return example.SerializeToString()


JPEG = sets.jpeg(sets.tile(0))
BAD = {
    "label above": (sets.example(JPEG, [0, 10]), r"outside 0…9.*received 0, 10"),
    "label below": (sets.example(JPEG, [-1]), r"outside 0…9.*received -1"),
    "label type": (wrong_type(), "no tf.train.Example with"),
    "no example": (b"\x07garbage", "no tf.train.Example with"),
    "no image": (sets.example(b"", [1]), "it has no image"),
    "no picture": (sets.example(b"hello, world", [1]), "cannot be decoded"),
    "cut off": (sets.example(JPEG[: len(JPEG) // 4], [1]), "cannot be decoded"),
    "cut png": (
        sets.example(sets.encoded(sets.tile(0), "PNG")[:100], [1]),
        "cannot be decoded",
    ),
    "png bomb": (sets.example(bomb(), [1]), "more than `max_pixels`=100000000"),
    "jpeg bomb": (sets.example(jpeg_bomb(), [1]), "more than `max_pixels`=100000000"),
}


def with_bad(path: pathlib.Path, bad: list[bytes]) -> TFRecords:
    """Two shards; record 3 of the second, and those behind it, are bad."""
    good = [sets.example(sets.jpeg(sets.tile(i)), [i % 10]) for i in range(GOOD)]
    return sets.shards(path, [good[:4], [*good[4:7], *bad, *good[7:]]])


def evaluate(source, policy="stop", **options):
    data = EvalData(source, image_size=8, classes=10, on_bad_record=policy, **options)
    return list(data.dataset(batch_size=8))


@pytest.mark.parametrize("kind", ["label above", "png bomb"])
def test_a_bad_record_stops_the_run_with_its_file_and_number(tmp_path, kind):
    record, message = BAD[kind]
    source = with_bad(tmp_path, [record])
    where = r"train-00001-of-00002\.tfrecord, record 3: .*"
    with pytest.raises(tf.errors.InvalidArgumentError, match=where + message):
        evaluate(source)


def test_bad_records_are_skipped_and_counted(tmp_path, capfd):
    source = with_bad(tmp_path, [record for record, _ in BAD.values()])
    batches = evaluate(source, "skip")
    assert sum(float(tf.reduce_sum(batch["mask"])) for batch in batches) == GOOD
    log = capfd.readouterr().err
    for number, (_, message) in enumerate(BAD.values(), 3):
        where = rf"train-00001-of-00002\.tfrecord, record {number}: .*"
        assert re.search(where + message, log)
    train = TrainData(source, image_size=8, classes=10, on_bad_record="skip")
    total = GOOD + len(BAD)
    (batch,) = train.dataset(batch_size=total, seed=0).take(1)
    assert float(tf.reduce_sum(batch["skipped"])) == len(BAD)
    # Each is replaced by the nearest good image in front of it in the batch.
    skipped, images = batch["skipped"].numpy() == 1, batch["images"].numpy()
    for row in np.flatnonzero(skipped):
        front = row
        while skipped[front]:
            front -= 1
        np.testing.assert_array_equal(images[row], images[front])


def test_skipping_keeps_batches_a_function_of_seed_and_step(tmp_path):
    source = with_bad(tmp_path, [BAD["no picture"][0]])
    data = TrainData(source, image_size=8, classes=10, on_bad_record="skip")
    first = [b["images"].numpy() for b in data.dataset(batch_size=4, seed=0).take(9)]
    rest = data.dataset(batch_size=4, seed=0, start_step=5).take(4)
    for got, expected in zip(rest, first[5:], strict=True):
        np.testing.assert_array_equal(got["images"], expected)


def test_a_flipped_bit_costs_one_record(tmp_path):
    source = with_bad(tmp_path, [])
    path = source.shards[1].path
    start = int(source.index().offsets(1)[2])
    data = bytearray(pathlib.Path(path).read_bytes())
    data[start + 60] ^= 4
    pathlib.Path(path).write_bytes(bytes(data))
    where = r"train-00001-of-00002\.tfrecord, record 2: its bytes fail their checksum"
    with pytest.raises(tf.errors.InvalidArgumentError, match=where):
        evaluate(source)
    batches = evaluate(source, "skip")
    assert sum(float(tf.reduce_sum(batch["mask"])) for batch in batches) == GOOD - 1


def test_a_truncated_shard_is_named(tmp_path, caplog):
    source = with_bad(tmp_path, [])
    path = pathlib.Path(source.shards[1].path)
    path.write_bytes(path.read_bytes()[:-10])
    where = r"train-00001-of-00002\.tfrecord, record 6: .*truncated"
    with pytest.raises(ValueError, match=where):
        evaluate(source)
    batches = evaluate(source, "skip")
    assert sum(float(tf.reduce_sum(batch["mask"])) for batch in batches) == GOOD - 1
    assert "train-00001-of-00002.tfrecord, record 6" in caplog.text


def test_subsets_of_a_damaged_set_are_trained_on_under_skip(tmp_path):
    source = with_bad(tmp_path, [])
    path = pathlib.Path(source.shards[1].path)
    data = bytearray(path.read_bytes()[:-10])  # Truncated, and a bit flipped.
    data[int(source.index().offsets(1)[2]) + 60] ^= 4
    path.write_bytes(bytes(data))
    options = {"image_size": 8, "classes": 10, "num_images": 8}
    data = TrainData(TFRecords(source.pattern), on_bad_record="skip", **options)
    (batch,) = data.dataset(batch_size=8, seed=0).take(1)
    assert float(tf.reduce_sum(batch["skipped"])) == 0  # The bad ones come last.
    with pytest.raises(ValueError, match=r"00001-of-00002\.tfrecord, record 6: "):
        TrainData(TFRecords(source.pattern), **options).dataset(batch_size=8, seed=0)


def test_a_file_of_another_kind_is_named(tmp_path):
    sets.shards(tmp_path, [[sets.example(JPEG, [0])]])
    bad = tmp_path / "train-junk"
    bad.write_bytes(b"this is no TFRecord file")
    with pytest.raises(ValueError, match=r"train-junk, record 0: .*fails its checksum"):
        evaluate(TFRecords(str(tmp_path / "train-*")))


def test_compressed_shards_raise_with_advice(tmp_path):
    path = tmp_path / "train-0"
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        writer.write(b"data")
    with pytest.raises(ValueError, match=r"gzip-compressed.*write it"):
        evaluate(TFRecords(str(path)))


def test_wrong_feature_keys_are_named(tmp_path):
    source = with_bad(tmp_path, [])
    wrong = TFRecords(source.pattern, Features(image="jpeg"))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"no feature .*jpeg"):
        evaluate(wrong)


def test_empty_sets_and_patterns_raise(tmp_path):
    with pytest.raises(ValueError, match="`pattern` must name TFRecord files"):
        TFRecords("")
    with pytest.raises(FileNotFoundError, match="fits no file"):
        evaluate(TFRecords(str(tmp_path / "none-*")))
    with pytest.raises(ValueError, match="all empty"):
        evaluate(sets.shards(tmp_path, [[], []]))


def test_an_empty_file_among_others_is_named(tmp_path, caplog):
    source = with_bad(tmp_path, [])
    (tmp_path / "train-empty").write_bytes(b"")
    with pytest.raises(ValueError, match=r"train-empty has 0 bytes.*1 such files of 3"):
        evaluate(TFRecords(source.pattern))
    batches = evaluate(TFRecords(source.pattern), "skip")
    assert sum(float(tf.reduce_sum(batch["mask"])) for batch in batches) == GOOD
    assert "train-empty has 0 bytes" in caplog.text


def test_unusual_images_are_read(tmp_path):
    photo = sets.photograph()[:64, :64]
    grey = photo.mean(-1).astype(np.uint8)
    sixteen = Image.fromarray(grey.astype(np.uint16) * 257)
    frames = [Image.fromarray(photo), Image.fromarray(photo[::-1])]
    animated, cmyk, deep = io.BytesIO(), io.BytesIO(), io.BytesIO()
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    Image.fromarray(photo).convert("CMYK").save(cmyk, "JPEG", quality=95)
    sixteen.save(deep, "PNG")
    images = [
        sets.encoded(grey, "JPEG", quality=95),
        deep.getvalue(),
        animated.getvalue(),
        cmyk.getvalue(),
        sets.encoded(np.dstack([photo, grey]), "PNG"),
        sets.encoded(photo, "BMP"),
    ]
    source = sets.shards(tmp_path, [[sets.example(image, [0]) for image in images]])
    data = EvalData(
        source,
        image_size=64,
        classes=1,
        preprocess=Resize(),
        value_range=(0.0, 255.0),
    )
    (batch,) = data.dataset(batch_size=6)
    got = batch["images"].numpy()
    for number, expected in enumerate([grey[..., None], grey[..., None], photo, photo]):
        error = np.abs(got[number] - expected.astype(float)).mean()
        assert error < 8, number  # JPEG's, CMYK's and the palette's losses.
    np.testing.assert_array_equal(got[4], photo)  # Alpha is dropped.
    np.testing.assert_array_equal(got[5], photo)
    train = TrainData(source, image_size=16, classes=1)
    assert next(iter(train.dataset(batch_size=6, seed=0)))["images"].shape[0] == 6
