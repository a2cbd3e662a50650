"""Files of arrays are read exactly and written atomically."""
# SPDX-License-Identifier: Apache-2.0

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from vit_scaling import array_files as files

VALUES = np.array([1.0, -0.0, 1e-30, 3.14159274, np.inf], np.float32)


def test_npz_keeps_every_bit(tmp_path):
    path = str(tmp_path / "new" / "a.npz")
    files.write_npz(path, {"a/b": VALUES, "file": VALUES[:2]})
    read = files.read_npz(path)
    assert read["a/b"].tobytes() == VALUES.tobytes()
    assert read["file"].tobytes() == VALUES[:2].tobytes()


def test_safetensors_keeps_every_bit_and_its_metadata(tmp_path):
    path = str(tmp_path / "a.safetensors")
    transposed = np.arange(6, dtype=np.float32).reshape(2, 3).T
    files.write_safetensors(path, {"a": VALUES, "t": transposed}, {"format": "pt"})
    read, metadata = files.read_safetensors(path)
    assert read["a"].tobytes() == VALUES.tobytes()
    np.testing.assert_array_equal(read["t"], transposed)
    assert metadata == {"format": "pt"}


def test_bfloat16_is_read_from_two_byte_void(tmp_path):
    rounded = VALUES.astype(ml_dtypes.bfloat16)
    path = str(tmp_path / "a.npz")
    np.savez(path, a=rounded)
    assert np.load(path)["a"].dtype.str == "|V2"
    np.testing.assert_array_equal(files.read_npz(path)["a"], rounded.astype(np.float32))


def test_half_precision_of_both_kinds_is_read_from_safetensors(tmp_path):
    path = str(tmp_path / "a.safetensors")
    halves = {
        "b": VALUES.astype(ml_dtypes.bfloat16),
        "h": np.array([1, 2.5], np.float16),
    }
    safetensors.numpy.save_file(halves, path)
    read, _ = files.read_safetensors(path)
    np.testing.assert_array_equal(read["b"], halves["b"].astype(np.float32))
    assert read["b"].dtype == read["h"].dtype == np.float32


def test_failed_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="pickle"):
        files.write_npz(str(path), {"a": VALUES, "b": np.array([object()])})
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("read", [files.read_npz, files.read_safetensors])
def test_missing_file_is_named(read, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(str(tmp_path / "nowhere"))


def test_single_array_is_no_file_of_named_arrays(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, VALUES)
    with pytest.raises(ValueError, match=r"can't be read as \.npz"):
        files.read_npz(str(path))


def test_an_archive_that_expands_too_much_is_rejected_before_reading(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(files, "UNCHECKED_BYTES", 2**16)
    path = str(tmp_path / "a.npz")
    np.savez_compressed(path, a=np.zeros(2**20, np.float32))
    with pytest.raises(ValueError, match=r"would expand to .* times its size"):
        files.read_npz(path)
    random = np.random.default_rng(0).normal(size=2**16).astype(np.float32)
    np.savez_compressed(path, a=random)  # Larger than the limit, but true weights.
    assert len(files.read_npz(path)["a"]) == 2**16


def test_a_header_that_claims_more_than_memory_is_rejected(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros(4, np.float32))
    content = path.read_bytes()
    assert content.count(b"(4,), }       ") == 1
    path.write_bytes(content.replace(b"(4,), }       ", b"(4000000000,2)"))
    with pytest.raises(ValueError, match=r"can't be read as \.npz"):
        files.read_npz(str(path))


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2"])
def test_numbers_of_8_bits_are_rejected_by_name(kind, tmp_path):
    path = str(tmp_path / "a.safetensors")
    header = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}[kind]
    array = VALUES[:4].astype(getattr(ml_dtypes, kind))
    text = json.dumps({"a": {"dtype": header, "shape": [4], "data_offsets": [0, 4]}})
    length = len(text).to_bytes(8, "little")
    (tmp_path / "a.safetensors").write_bytes(length + text.encode() + array.tobytes())
    with pytest.raises(ValueError, match=f"Array 'a' .* is of type {header}"):
        files.read_safetensors(path)
