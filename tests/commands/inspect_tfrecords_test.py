"""The command that looks at a set."""
# SPDX-License-Identifier: Apache-2.0

import json
from pathlib import Path

from PIL import Image

from tests.data import sets
from vit_scaling.commands import inspect_tfrecords


def make_set(path):
    records = [sets.example(sets.jpeg(sets.tile(n)), [n % 3], f"{n}") for n in range(9)]
    return sets.shards(path, [records])


def test_counts_and_sheets_are_made(tmp_path, capsys):
    flags = [f"--pattern={make_set(tmp_path).pattern}", f"--output_dir={tmp_path}/look"]
    assert inspect_tfrecords.main([*flags, "--images=6", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["class_counts"] == {"0": 3, "1": 3, "2": 3}
    assert len(result["sheets"]) == 3
    page, *sheets = result["sheets"]
    assert "exact copies" in Path(page).read_text(encoding="utf-8")
    for path in sheets:
        with Image.open(path) as sheet:
            assert min(sheet.size) > 96


def test_other_keys_come_from_flags(tmp_path, capsys):
    record = sets.example(b"", [3], jpeg=sets.jpeg(sets.tile(0)))
    flags = [f"--pattern={sets.shards(tmp_path, [[record]]).pattern}", "--json"]
    keys = ["--image_key=jpeg", "--label_offset=-1"]
    assert inspect_tfrecords.main([*flags, *keys]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["class_counts"] == {"2": 1}
    assert result["formats"] == {"JPEG, 3 channels": 1}


def test_the_text_has_a_histogram(tmp_path, capsys):
    assert inspect_tfrecords.main([f"--pattern={make_set(tmp_path).pattern}"]) == 0
    output = capsys.readouterr().out
    assert "9 records in 1 shards" in output
    assert output.count("#" * 40) == 3  # Three classes of equal size.
