"""Files that are whole or not there."""
# SPDX-License-Identifier: Apache-2.0

import hashlib
import json

import pytest

from vit_scaling.data.files import sync_and_hash, write_json


def test_the_hash_is_that_of_the_bytes_on_the_disk(tmp_path):
    path = tmp_path / "file"
    data = bytes(range(256)) * 10_000  # More than one piece.
    path.write_bytes(data)
    assert sync_and_hash(str(path)) == hashlib.sha256(data).hexdigest()


def test_json_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "value.json"
    write_json(str(path), {"name": "größe", "number": 1})
    assert json.loads(path.read_text()) == {"name": "größe", "number": 1}
    with pytest.raises(TypeError):
        write_json(str(path), {"number": 2, "name": object()})
    assert json.loads(path.read_text())["number"] == 1
