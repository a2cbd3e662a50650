"""Files and folders appear complete or not at all; JSON has no NumPy types."""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import pathlib
import threading

import numpy as np
import pytest

from vit_scaling import io_files


def test_folder_appears_when_all_is_written(tmp_path):
    with io_files.atomic_folder(tmp_path / "new" / "1") as folder:
        (folder / "a").write_text("x")
        assert not (tmp_path / "new" / "1").exists()
        # A model server looks for numbers only.
        assert folder.parent == tmp_path / "new" and not folder.name.isdigit()
    assert (tmp_path / "new" / "1" / "a").read_text() == "x"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["1"]
    assert (tmp_path / "new" / "1").stat().st_mode & 0o777 == 0o755


def test_failure_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), io_files.atomic_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("x")
        raise KeyError("on the way")
    assert not list(tmp_path.iterdir())


def test_what_is_there_already_is_left_as_it_is(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(FileExistsError, match="not overwritten"):  # noqa: SIM117
        with io_files.atomic_folder(tmp_path / "out"):
            pytest.fail("Nothing may be written.")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    with io_files.atomic_folder(tmp_path / "out") as folder:
        (folder / "a").touch()
    assert (tmp_path / "out" / "a").exists()


def test_folder_that_appears_meanwhile_is_left_as_it_is(tmp_path):
    def race():
        with io_files.atomic_folder(tmp_path / "out"):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "theirs").touch()

    with pytest.raises(FileExistsError):
        race()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["theirs"]


def test_file_is_replaced_only_on_success(tmp_path):
    path = tmp_path / "new" / "settings.json"
    io_files.write_json(path, {"step": 1})
    with pytest.raises(KeyError), io_files.atomic_file(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".json"
        temporary.write_text("half")
        raise KeyError("on the way")
    assert io_files.read_json(path) == {"step": 1}
    assert os.listdir(path.parent) == ["settings.json"]


def test_json_that_cannot_be_read_names_its_file(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json is not valid JSON"):
        io_files.read_json(tmp_path / "bad.json")


def test_values_become_json_types():
    value = {
        1: np.float64(0.5),
        "list": (np.int64(3), float("inf"), np.array([1.0, np.nan])),
        "path": pathlib.Path("a/b"),
        "kept": [True, None, "text"],
    }
    found = json.loads(json.dumps(io_files.to_json_types(value), allow_nan=False))
    assert found == {
        "1": 0.5,
        "list": [3, None, [1.0, None]],
        "path": "a/b",
        "kept": [True, None, "text"],
    }


def test_calls_in_threads_overlap_and_keep_the_order():
    barrier = threading.Barrier(8, timeout=20)

    def wait_for_all(number):
        barrier.wait()  # Ends only if eight calls are made at the same time.
        return number**2

    assert io_files.map_in_threads(wait_for_all, range(8)) == [n**2 for n in range(8)]
    with pytest.raises(ZeroDivisionError):
        io_files.map_in_threads(lambda n: 1 / n, [1, 0])
