"""Arrays stored next to a shard."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np

from vit_scaling.data import sidecar_files


def test_an_array_is_stored_in_the_shards_folder(tmp_path):
    shard = str(tmp_path / "train-0")  # It need not exist yet.
    path = sidecar_files.write_sidecar(shard, "offsets", np.arange(3))
    assert path == str(tmp_path / "index/train-0.offsets.npy")
    (array,) = sidecar_files.read_sidecars(shard, "offsets")
    assert array.tolist() == [0, 1, 2]
    assert not list(sidecar_files.read_sidecars(shard, "keys"))


def test_a_damaged_sidecar_is_ignored(tmp_path):
    shard = str(tmp_path / "train-0")
    path = sidecar_files.write_sidecar(shard, "offsets", np.arange(3))
    with open(path, "r+b") as file:
        file.truncate(40)
    assert not list(sidecar_files.read_sidecars(shard, "offsets"))


def test_the_kind_of_key_hashes_depends_on_key_and_size():
    kinds = {
        sidecar_files.key_hashes_kind(key, size)
        for key in ("a", "b")
        for size in (1, 2)
    }
    assert len(kinds) == 4
