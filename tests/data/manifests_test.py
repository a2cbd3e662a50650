"""Manifests and the shards that they list."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from tests.data import sets
from vit_scaling.data.manifests import manifest_path, read_manifest, read_shards
from vit_scaling.data.tfrecords import TFRecords


@pytest.mark.parametrize("content", ["{}", "[1]", "no json"])
def test_another_file_is_not_read_as_a_manifest(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="is no manifest of"):
        read_manifest(str(path))


def test_a_manifest_lists_the_shards_with_their_counts(tmp_path):
    sets.numbered(tmp_path, [2, 3])
    source = TFRecords(f"{tmp_path}/train.manifest.json")
    assert [shard.records for shard in source.shards] == [2, 3]
    assert source.index().num_records == 5
    # The same is known where a pattern finds the files.
    assert TFRecords(f"{tmp_path}/train-*").shards == source.shards
    assert tuple(read_shards(manifest_path(str(tmp_path), "train"))) == source.shards
