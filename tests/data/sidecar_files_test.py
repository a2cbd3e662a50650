"""Arrays stored next to a shard."""
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from vit_scaling.data import sidecar_files


def test_an_array_is_stored_in_the_shards_folder(tmp_path):
    shard = str(tmp_path / "train-0")  # It need not exist yet.
    path = sidecar_files.write_sidecar(shard, "offsets", np.arange(3))
    assert path == str(tmp_path / "index/train-0.offsets.npy")
    (array,) = sidecar_files.read_sidecars(shard, "offsets")
    assert array.tolist() == [0, 1, 2]
    assert not list(sidecar_files.read_sidecars(shard, "keys"))


@pytest.mark.parametrize("length", [0, 1, 3, 100_000])
@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_arrays_are_those_that_numpy_reads(tmp_path, length, dtype):
    values = np.random.default_rng(0).integers(2**63, size=length).astype(dtype)
    path = sidecar_files.write_sidecar(str(tmp_path / "train-0"), "offsets", values)
    array = sidecar_files.load_array(path)
    expected = np.load(path)
    np.testing.assert_array_equal(array, expected)
    assert array.dtype == expected.dtype


@pytest.mark.parametrize("length", [0, 40, 127, 128, 151])
def test_a_cut_off_sidecar_is_ignored(tmp_path, length):
    shard = str(tmp_path / "train-0")
    path = sidecar_files.write_sidecar(shard, "offsets", np.arange(3))
    with open(path, "r+b") as file:
        file.truncate(length)
    assert not list(sidecar_files.read_sidecars(shard, "offsets"))


@pytest.mark.parametrize(
    "array",
    [np.arange(3.0), np.arange(3, dtype=np.int32), np.arange(3).reshape(1, 3)],
    ids=["floats", "int32", "two axes"],
)
def test_an_array_that_no_sidecar_holds_is_ignored(tmp_path, array):
    np.save(tmp_path / "array.npy", array)
    assert sidecar_files.load_array(str(tmp_path / "array.npy")) is None


def test_reading_an_array_parses_no_python(tmp_path, monkeypatch):
    # Python 3.11's `ast.parse` in many threads raises now and then: "AST constructor
    # recursion depth mismatch". Sets with many shards are read in many threads.
    path = sidecar_files.write_sidecar(str(tmp_path / "train-0"), "o", np.arange(3))
    monkeypatch.setattr("ast.parse", lambda *_, **__: pytest.fail("parsed Python"))
    assert sidecar_files.load_array(path).tolist() == [0, 1, 2]


def test_the_kind_of_key_hashes_depends_on_key_and_size():
    kinds = {
        sidecar_files.key_hashes_kind(key, size)
        for key in ("a", "b")
        for size in (1, 2)
    }
    assert len(kinds) == 4
