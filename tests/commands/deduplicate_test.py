"""The command that cleans a training set, and measures how well."""
# SPDX-License-Identifier: Apache-2.0

import json

from tests.data import sets
from tests.data.deduplication.example_sets import photos, planted
from vit_scaling.commands import deduplicate


def test_a_set_is_cleaned_and_reported(tmp_path, capsys):
    planted(tmp_path)
    flags = [
        f"--train={tmp_path}/train/train-*",
        f"--against={tmp_path}/test/train-*",
        f"--output_dir={tmp_path}/clean",
        "--repeats",
        "--report",
        "--json",
    ]
    assert deduplicate.main(flags) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["removed"], result["kept"], result["unreadable"]) == (3, 13, 1)
    assert list(result["removed_by_set"].values()) == [1, 2]
    page = (tmp_path / "clean/report.html").read_text()
    assert page.count("<figure>") == 3
    assert page.count("data:image/jpeg") == 6
    flags[2] = f"--output_dir={tmp_path}/train"
    assert deduplicate.main(flags) == 1
    assert "must not be the training set's own folder" in capsys.readouterr().err


def test_sets_with_other_keys_are_read_with_flags(tmp_path, capsys):
    planted(tmp_path)
    (_, image), *_ = photos(1)
    sets.shards(tmp_path / "val", [[sets.example(b"", [0], jpeg=image)]])
    flags = [
        f"--train={tmp_path}/train/train-*",
        f"--against={tmp_path}/val/train-*",
        f"--output_dir={tmp_path}/clean",
        "--no-report",
    ]
    assert deduplicate.main(flags) == 1
    assert "--image_key" in capsys.readouterr().err
    assert deduplicate.main([*flags, "--against_image_key=jpeg"]) == 0
    output = capsys.readouterr().out
    assert "1 of 16 images removed" in output
    assert "Not decoded: 1 training images (kept), 0 evaluation images." in output


def test_exceptions_are_kept(tmp_path, capsys):
    planted(tmp_path)
    both = f"--against={tmp_path}/test/train-*,{tmp_path}/train/train-00000*"
    flags = [f"--train={tmp_path}/train/train-*", both, "--no-report"]
    assert deduplicate.main([*flags, f"--output_dir={tmp_path}/first"]) == 0
    rows = (tmp_path / "first/removed.csv").read_text().splitlines()
    exceptions = tmp_path / "exceptions.csv"
    exceptions.write_text("\n".join(rows[:3]) + "\n")  # The names and two records.
    flags += [f"--output_dir={tmp_path}/second", f"--exceptions={exceptions}"]
    capsys.readouterr()
    assert deduplicate.main(flags) == 0
    assert "8 of 16 images removed" in capsys.readouterr().out
    again = (tmp_path / "second/removed.csv").read_text().splitlines()
    assert again == [rows[0], *rows[3:]]
    exceptions.write_text("name\na\n")
    assert deduplicate.main(flags) == 1
    assert "must have the columns file and record" in capsys.readouterr().err


def test_evaluation_sets_are_separated_by_commas(tmp_path, capsys):
    planted(tmp_path)
    both = f"--against={tmp_path}/test/train-*,{tmp_path}/train/train-00000*"
    flags = [f"--train={tmp_path}/train/train-*", both]
    out = [f"--output_dir={tmp_path}/clean", "--no-report"]
    assert deduplicate.main([*flags, *out]) == 0
    output = capsys.readouterr().out
    assert "10 of 16 images removed" in output  # The first shard's seven, and copies.
    assert not (tmp_path / "clean/report.html").exists()


def test_a_study_prints_recall_and_precision(tmp_path, capsys):
    for key, data in photos(30):
        (tmp_path / f"{key}.jpg").write_bytes(data)
    assert deduplicate.main([f"--study={tmp_path}", "--copies=14", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (
        result["planted"] == sum(row["of"] for row in result["recall"].values()) == 14
    )
    assert result["recall"]["re-encoded"]["share"] == 1.0
    assert deduplicate.main([f"--study={tmp_path}", "--copies=14"]) == 0
    assert "precision" in capsys.readouterr().out


def test_missing_flags_are_named(capsys):
    assert deduplicate.main(["--train=x"]) == 1
    assert "Give --train and --output_dir, or --study" in capsys.readouterr().err
