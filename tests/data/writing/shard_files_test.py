"""Shards are complete or absent."""
# SPDX-License-Identifier: Apache-2.0

import hashlib
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from vit_scaling.data import sidecar_files, subsets
from vit_scaling.data.examples import Features
from vit_scaling.data.record_index import RecordIndex, Shard
from vit_scaling.data.writing.shard_files import open_shard


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
