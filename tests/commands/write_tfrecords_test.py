"""The command that writes a set."""
# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from tests.data import sets
from vit_scaling.commands import write_tfrecords
from vit_scaling.data.writing.verification import verify


@pytest.fixture
def images(tmp_path):
    return sets.folder(tmp_path / "images", {"cat": 5, "dog": 4})


def run(source, out, *flags):
    return write_tfrecords.main(
        [f"--source={source}", f"--output_dir={out}", "--workers=1", *flags]
    )


def test_a_set_is_written_with_its_settings(images, tmp_path, capsys):
    (images / "cat/bad.png").write_bytes(b"junk")
    out = tmp_path / "out"
    flags = ["--num_shards=2", "--reencode=jpeg", "--quality=80", "--json"]
    assert run(f"folder:{images}", out, *flags) == 0
    captured = capsys.readouterr()
    manifest = json.loads(captured.out)
    assert (manifest["records"], manifest["left_out"]) == (9, 1)
    assert manifest["settings"]["reencode"] == "jpeg"
    assert manifest["settings"]["quality"] == 80
    assert "10/10 images" in captured.err
    assert verify(str(out / "train.manifest.json"))["fault_count"] == 0


def test_the_summary_names_what_was_left_out(images, tmp_path, capsys):
    (images / "cat/bad.png").write_bytes(b"junk")
    assert run(f"folder:{images}", tmp_path / "out") == 0
    output = capsys.readouterr().out
    assert "9 images of 2 classes in 1 shards" in output
    assert "cat/bad.png: does not decode" in output


def test_the_summary_and_the_manifest_count_every_file_seen(images, tmp_path, capsys):
    (images / "cat/.DS_Store").touch()
    (images / "cat/notes.txt").write_text("no image")
    out = tmp_path / "out"
    assert run(f"folder:{images}", out) == 0
    output = capsys.readouterr().out
    assert "11 files seen: 9 used, 2 skipped." in output
    assert "1 skipped, hidden: cat/.DS_Store" in output
    assert "1 skipped, not an image: cat/notes.txt" in output
    manifest = json.loads((out / "train.manifest.json").read_text())
    assert manifest["listing"] == {
        "seen": 11,
        "used": 9,
        "skipped": 2,
        "reasons": {
            "hidden": {"count": 1, "first": ["cat/.DS_Store"]},
            "not an image": {"count": 1, "first": ["cat/notes.txt"]},
        },
    }


def test_the_output_may_be_inside_the_source_and_empty_classes_are_named(
    images, capsys
):
    (images / "emu").mkdir()
    assert run(f"folder:{images}", images / "out") == 0
    assert "1 classes have no image: emu" in capsys.readouterr().out
    assert (images / "out/classes.txt").read_text() == "cat\ndog\nemu\n"


def test_subsets_and_order_come_from_flags(images, tmp_path, capsys):
    assert run(f"folder:{images}", tmp_path / "all", "--keep_order") == 0
    pattern = f"tfrecords:{tmp_path}/all/train.manifest.json"
    assert run(pattern, tmp_path / "some", "--num_images=4", "--json") == 0
    output = capsys.readouterr().out
    assert json.loads(output[output.index("{") :])["records"] == 4


def test_records_with_other_keys_are_written_with_ours(tmp_path, capsys):
    record = sets.example(b"", [3], jpeg=sets.jpeg(sets.tile(0)))
    source = f"tfrecords:{sets.shards(tmp_path / 'set', [[record]]).pattern}"
    keys = ["--image_key=jpeg", "--label_offset=-1"]
    assert run(source, tmp_path / "out", *keys) == 0
    assert verify(f"{tmp_path}/out/train.manifest.json")["fault_count"] == 0
    assert (tmp_path / "out/classes.txt").read_text() == "0\n1\n2\n"
    assert run("digits", tmp_path / "other", *keys) == 1
    assert "are keys of existing records" in capsys.readouterr().err


def test_errors_are_one_line_and_a_code(tmp_path, capsys):
    assert run("zip:x", tmp_path) == 1
    assert "`source` must be one of folder:PATH" in capsys.readouterr().err
    assert run(f"folder:{tmp_path}/none", tmp_path) == 1
    assert "must be a folder" in capsys.readouterr().err
