"""The command that checks a set; its code is 0 only if nothing is wrong."""
# SPDX-License-Identifier: Apache-2.0

import json

from tests.data import sets
from vit_scaling.commands import verify_tfrecords

JPEG = sets.jpeg(sets.tile(0))


def test_a_good_set_passes(tmp_path, capsys):
    source = sets.shards(tmp_path, [[sets.example(JPEG, [0])]])
    assert verify_tfrecords.main([f"--pattern={source.pattern}"]) == 0
    assert capsys.readouterr().out == "1 records in 1 shards checked.\nNo fault.\n"


def test_a_bad_one_fails_with_its_faults_named(tmp_path, capsys):
    records = [sets.example(JPEG, [7], "a"), sets.example(b"junk", [0], "b")]
    flag = f"--pattern={sets.shards(tmp_path, [records]).pattern}"
    assert verify_tfrecords.main([flag, "--classes=7"]) == 1
    output = capsys.readouterr().out
    assert "2 faults:" in output
    assert "record 0: labels [7] are outside 0…6" in output
    assert verify_tfrecords.main([flag, "--no_decode", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fault_count"] == 0
    assert verify_tfrecords.main([flag, "--classes=7", "--max_faults=1", "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["faults"]) == 1


def test_other_keys_come_from_flags(tmp_path, capsys):
    record = sets.example(b"", [1], jpeg=JPEG)
    flag = f"--pattern={sets.shards(tmp_path, [[record]]).pattern}"
    assert verify_tfrecords.main([flag]) == 1
    keys = ["--image_key=jpeg", "--label_offset=-1", "--classes=1"]
    assert verify_tfrecords.main([flag, *keys]) == 0
    assert "No fault" in capsys.readouterr().out


def test_a_missing_set_is_reported(tmp_path, capsys):
    assert verify_tfrecords.main([f"--pattern={tmp_path}/none-*"]) == 1
    assert "fits no file" in capsys.readouterr().err
