"""A folder appears whole, or not at all."""
# SPDX-License-Identifier: Apache-2.0

import pytest

from vit_scaling.export.writing import written_whole


def test_folder_appears_when_all_is_written(tmp_path):
    with written_whole(tmp_path / "new" / "1") as folder:
        (folder / "a").write_text("x")
        assert not (tmp_path / "new" / "1").exists()
        # A model server looks for numbers only.
        assert folder.parent == tmp_path / "new" and not folder.name.isdigit()
    assert (tmp_path / "new" / "1" / "a").read_text() == "x"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["1"]
    assert (tmp_path / "new" / "1").stat().st_mode & 0o777 == 0o755


def test_failure_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), written_whole(tmp_path / "out") as folder:
        (folder / "a").write_text("x")
        raise KeyError("on the way")
    assert not list(tmp_path.iterdir())


def test_what_is_there_already_is_left_as_it_is(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(FileExistsError, match="left as it is"):  # noqa: SIM117
        with written_whole(tmp_path / "out"):
            pytest.fail("Nothing may be written.")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    with written_whole(tmp_path / "out") as folder:
        (folder / "a").touch()
    assert (tmp_path / "out" / "a").exists()


def test_folder_that_appears_meanwhile_is_left_as_it_is(tmp_path):
    def race():
        with written_whole(tmp_path / "out"):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "theirs").touch()

    with pytest.raises(FileExistsError):
        race()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["theirs"]
