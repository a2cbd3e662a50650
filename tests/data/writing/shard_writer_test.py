"""Images become records, or are left out with a reason."""
# SPDX-License-Identifier: Apache-2.0

import hashlib
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tests.data import sets
from tests.data.bad_records_test import bomb
from tests.data.writing.split_writer_test import examples, write
from vit_scaling.data import sidecar_files, subsets
from vit_scaling.data.examples import Features, feature_values
from vit_scaling.data.record_index import RecordIndex, Shard
from vit_scaling.data.writing import shard_writer
from vit_scaling.data.writing.image_files import Folder
from vit_scaling.data.writing.shard_writer import open_shard


def test_unusable_images_are_left_out_with_a_reason(tmp_path):
    folder = sets.folder(tmp_path / "images", {"cat": 5, "dog": 9, "emu": 3})
    (folder / "cat/page.tiff").write_bytes(sets.encoded(sets.tile(0), "TIFF"))
    bad = {
        "empty.png": (b"", "0 bytes"),
        "cut.png": ((folder / "dog/0005.png").read_bytes()[:300], "does not decode"),
        "text.jpg": (b"no image", "no known image format"),
        "bomb.png": (bomb(), "60000×60000 is more than 100000000 pixels"),
    }
    for name, (data, _) in bad.items():
        (folder / "cat" / name).write_bytes(data)
    manifest = write(Folder(str(folder)), tmp_path / "out")
    assert (manifest["records"], manifest["converted"]) == (18, 1)
    reasons = {row["key"]: row["reason"] for row in manifest["left_out_named"]}
    assert manifest["left_out"] == len(bad)
    for name, (_, reason) in bad.items():
        assert reason in reasons[f"cat/{name}"]
    settings = shard_writer.Settings(reencode="jpeg")
    reencoded = write(Folder(str(folder)), tmp_path / "reencoded", settings=settings)
    assert reencoded["records"] == 18
    for example in examples(tmp_path / "reencoded").values():
        assert feature_values(example, "image/format") == [b"jpeg"]


def test_a_shard_comes_with_its_offsets_hashes_and_row(tmp_path):
    path = str(tmp_path / "train-0")
    with open_shard(path, Features()) as shard:
        for key in (b"a", b"b"):
            shard.write(b"data of " + key, key)
    content = pathlib.Path(path).read_bytes()
    assert shard.manifest_row() == {
        "file": "train-0",
        "records": 2,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    records = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
    assert records == [b"data of a", b"data of b"]
    assert [data for _, data in RecordIndex([Shard(path)]).read_records()] == records
    kind = sidecar_files.key_hashes_kind("image/filename", len(content))
    (hashes,) = sidecar_files.read_sidecars(path, kind)
    expected = [subsets.hash_key(b"a"), subsets.hash_key(b"b")]
    np.testing.assert_array_equal(hashes, np.array(expected, np.uint64))


def test_hashes_are_not_stored_if_a_record_has_no_key_or_the_image_is_the_key(tmp_path):
    keyed_by_image = Features(key="image/encoded")
    for features, key in ((Features(), None), (keyed_by_image, b"k")):
        path = str(tmp_path / f"train-{key}")
        with open_shard(path, features) as shard:
            shard.write(b"data", key)
        assert [p.name for p in (tmp_path / "index").glob("*keys*")] == []


def test_a_failure_leaves_nothing(tmp_path):
    with (
        pytest.raises(KeyError),
        open_shard(str(tmp_path / "train-0"), Features()) as shard,
    ):
        shard.write(b"data", b"key")
        raise KeyError
    assert os.listdir(tmp_path) == []
