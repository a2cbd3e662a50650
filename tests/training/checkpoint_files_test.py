"""One checkpoint's files: what is read is what was written, or the reader says so."""
# SPDX-License-Identifier: Apache-2.0

import json
import pathlib
import zlib

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from etils import epath

from vit_scaling.training import checkpoint_files
from vit_scaling.training.checkpoint_files import (
    FORMAT,
    MANIFEST,
    CorruptCheckpointError,
    checkpoint_folder,
    read_checkpoint,
    remove_checkpoint,
    saved_steps,
    step_folders,
    write_checkpoint,
)

DATA = pathlib.Path(__file__).parent / "data"
VALUES = {
    "model/head/kernel": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    "model/head/bias": np.array([-10.0, np.inf, np.nan, 1e-45], np.float32),
    "optimizer/adam/m": np.array([[1.5], [-0.1]], ml_dtypes.bfloat16),
    "optimizer/adam/iterations": np.array(2**40 + 1, np.int64),
    "run/empty": np.zeros([0, 3], np.float64),
}
STATE = {"images_seen": 12, "core_seconds": 0.1, "seed": 3}
FILES = ("variables.index", "variables.data-00000-of-00001", MANIFEST)


def written(tmp_path, step=7, values=VALUES):
    folder = checkpoint_folder(epath.Path(tmp_path), step)
    folder.mkdir(parents=True)
    write_checkpoint(folder, step, values, STATE)
    return folder


def bits(array):
    return array.dtype, array.shape, array.tobytes()


def test_every_bit_of_every_dtype_comes_back(tmp_path):
    values, manifest = read_checkpoint(written(tmp_path))
    assert {key: bits(v) for key, v in values.items()} == {
        key: bits(v) for key, v in VALUES.items()
    }
    assert manifest["step"] == 7 and manifest["state"] == STATE


def test_any_tensorflow_program_can_read_the_bundle_by_key(tmp_path):
    folder = written(tmp_path)
    reader = tf.train.load_checkpoint(str(folder / "variables"))
    assert set(reader.get_variable_to_shape_map()) == set(VALUES)
    np.testing.assert_array_equal(
        reader.get_tensor("model/head/kernel"), VALUES["model/head/kernel"]
    )


def sharded(tmp_path, monkeypatch):
    """Return a checkpoint of five files of 1,000 bytes and one of a larger variable."""
    monkeypatch.setattr(checkpoint_files, "SHARD_BYTES", 1000)
    values = {f"model/{n}": np.full(100, n, np.float32) for n in range(10)}
    values["model/large"] = np.arange(600, dtype=np.float32)
    return written(tmp_path, values=values), values


def test_a_large_state_is_written_in_files_of_limited_size(tmp_path, monkeypatch):
    folder, values = sharded(tmp_path, monkeypatch)
    names = [f"variables.data-{n:05d}-of-00006" for n in range(6)]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*names, "variables.index", MANIFEST]
    )
    sizes = [(folder / name).stat().length for name in names]
    assert sizes == [800] * 5 + [2400]
    read, _ = read_checkpoint(folder)
    assert {k: bits(v) for k, v in read.items()} == {
        k: bits(v) for k, v in values.items()
    }
    reader = tf.train.load_checkpoint(str(folder / "variables"))
    np.testing.assert_array_equal(
        reader.get_tensor("model/large"), values["model/large"]
    )


@pytest.mark.parametrize("number", range(6))
def test_damage_of_any_file_of_values_is_found(tmp_path, monkeypatch, number):
    folder, _ = sharded(tmp_path, monkeypatch)
    path = pathlib.Path(folder / f"variables.data-{number:05d}-of-00006")
    flip(path, 500, 3)
    with pytest.raises(CorruptCheckpointError, match="step_000000007` is damaged"):
        read_checkpoint(folder)
    path.unlink()
    with pytest.raises(CorruptCheckpointError, match=f"{path.name}.* is missing"):
        read_checkpoint(folder)


def test_only_the_wanted_prefixes_are_read(tmp_path):
    folder = written(tmp_path)
    values, _ = read_checkpoint(folder, prefixes=["model/", "averages/"])
    assert set(values) == {"model/head/kernel", "model/head/bias"}
    assert read_checkpoint(folder, prefixes=["averages/"])[0] == {}


def test_folders_that_are_being_written_or_set_aside_are_not_listed(tmp_path):
    for name in (
        ".writing_step_000000009",
        "step_000000008.part",
        "damaged_000000005",
        "step_x",
        "step_000000003",
        "step_000000012",
        "step_1000000000",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST).write_text("{}")
    (tmp_path / "step_000000013").mkdir()  # Its manifest is still to come.
    assert saved_steps(tmp_path) == [3, 12, 10**9]
    assert step_folders(tmp_path) == [3, 12, 13, 10**9]
    assert saved_steps(tmp_path / "nowhere") == []


def test_a_checkpoint_is_removed_manifest_first(tmp_path, monkeypatch):
    folder, left = written(tmp_path), []

    def rmtree(path):
        left.extend(sorted(file.name for file in path.iterdir()))

    monkeypatch.setattr(type(folder), "rmtree", rmtree)
    remove_checkpoint(folder)
    assert left == sorted(FILES[:2])
    assert saved_steps(tmp_path) == []


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path, name):
    folder = written(tmp_path)
    (folder / name).unlink()
    with pytest.raises(CorruptCheckpointError, match=rf"step_000000007.*{name}"):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.97])
def test_a_file_cut_off_anywhere_is_named(tmp_path, name, kept):
    folder = written(tmp_path)
    path = pathlib.Path(folder / name)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(CorruptCheckpointError, match=rf"is damaged: {name}"):
        read_checkpoint(folder)


def flip(path, position, bit):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def test_a_flipped_bit_anywhere_in_the_manifest_is_found_or_harmless(tmp_path):
    folder = written(tmp_path)
    path = pathlib.Path(folder / MANIFEST)
    content = path.read_bytes()
    wrong = []
    for position in [*range(40), *range(40, len(content), 5)]:
        flip(path, position, position % 8)
        try:
            values, manifest = read_checkpoint(folder)
        except CorruptCheckpointError:
            pass
        else:  # Space for tab, say: the same JSON.
            same = json.loads(content) == {**manifest, "crc32": _crc(manifest)}
            if not same or len(values) != len(VALUES):
                wrong.append(position)
        path.write_bytes(content)
    assert not wrong


def _crc(manifest):
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())


@pytest.mark.parametrize("name", FILES[:2])
def test_a_flipped_bit_in_the_variables_is_found(tmp_path, name):
    folder = written(tmp_path)
    path = pathlib.Path(folder / name)
    size = path.stat().st_size
    for position in {0, size // 3, size // 2, size - 1}:
        flip(path, position, 5)
        with pytest.raises(CorruptCheckpointError, match="step_000000007` is damaged"):
            read_checkpoint(folder)
        flip(path, position, 5)
    read_checkpoint(folder)  # Whole again.


def test_a_flipped_bit_anywhere_in_the_index_is_found_or_harmless(tmp_path):
    folder = written(tmp_path)
    path = pathlib.Path(folder / "variables.index")
    expected = {key: bits(value) for key, value in VALUES.items()}
    wrong = []
    for position in range(path.stat().st_size):
        flip(path, position, position % 8)
        try:
            values, _ = read_checkpoint(folder)
        except CorruptCheckpointError:
            pass
        else:  # The index ends with a filling of zeros.
            if {key: bits(value) for key, value in values.items()} != expected:
                wrong.append(position)
        flip(path, position, position % 8)
    assert not wrong


def test_a_newer_format_is_rejected_and_is_no_damage(tmp_path):
    folder = written(tmp_path)
    path = pathlib.Path(folder / MANIFEST)
    manifest = json.loads(path.read_text())
    del manifest["crc32"]
    manifest["format"] = FORMAT + 1
    path.write_text(json.dumps({**manifest, "crc32": _crc(manifest)}))
    with pytest.raises(ValueError, match=rf"format {FORMAT + 1}, newer than") as raised:
        read_checkpoint(folder)
    assert not isinstance(raised.value, CorruptCheckpointError)


def test_an_absent_checkpoint_is_reported_with_the_steps_that_exist(tmp_path):
    written(tmp_path, 7)
    with pytest.raises(FileNotFoundError, match=r"step_000000008.*saved there: \[7\]"):
        read_checkpoint(checkpoint_folder(tmp_path, 8))


@pytest.mark.parametrize("version", [1, 2])
def test_a_checkpoint_of_each_format_written_in_the_past_is_still_read(version):
    # Committed on 2026-11-23 and -27; what they hold is stated here by formula.
    folder = DATA / f"format_{version}" / "checkpoints" / "step_000000005"
    values, manifest = read_checkpoint(folder)
    assert manifest["format"] == version and manifest["step"] == 5
    assert manifest["state"] == {"images_seen": 40, "core_seconds": 1.5, "seed": 3}
    kernel = np.arange(12, dtype=np.float32).reshape(4, 3) / 8
    np.testing.assert_array_equal(values["model/head/kernel"], kernel)
    np.testing.assert_array_equal(values["averages/head/kernel"], kernel / 2)
    moment = values["optimizer/adam/head/kernel/first_moment"]
    assert moment.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(moment.astype(np.float32), kernel)
    assert values["run/global_step"] == 5
