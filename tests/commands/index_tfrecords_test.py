"""The command that builds index files of other programs' sets."""
# SPDX-License-Identifier: Apache-2.0

import json

from tests.data import sets
from vit_scaling.commands import index_tfrecords


def test_the_index_is_built_and_described(tmp_path, capsys):
    records = [sets.example(b"", [0], f"{n}") for n in range(10)]
    flag = f"--pattern={sets.shards(tmp_path, [records]).pattern}"
    assert index_tfrecords.main([flag, "--workers=1", "--fractions", "0.5", "1"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("10 records in 1 shards")
    assert lines[0].endswith("index files of 1 built.")
    assert lines[2] == "fraction 1.0: 10 images"
    assert "MiB" in captured.err
    assert index_tfrecords.main([flag, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["built"] == 0


def test_a_set_without_keys_is_an_error_that_names_the_flag(tmp_path, capsys):
    flag = f"--pattern={sets.shards(tmp_path, [[sets.example(b'', [0])]]).pattern}"
    assert index_tfrecords.main([flag, "--workers=1", "--key=none"]) == 1
    assert "--no-keys" in capsys.readouterr().err
    assert index_tfrecords.main([flag, "--workers=1", "--no-keys"]) == 0
