"""The comparison of near-duplicate searches plants copies and counts what is found."""
# SPDX-License-Identifier: Apache-2.0

import hashlib
import io
import json
import math

import numpy as np
import pytest
from PIL import Image

from tests.data.deduplication.example_sets import photos
from vit_scaling.commands import benchmark
from vit_scaling.commands.benchmarks import deduplication
from vit_scaling.commands.benchmarks.deduplication import Query


def grey_level(data):
    """A hash of eight bits: the mean of an image, so that all alike are found."""
    with Image.open(io.BytesIO(data)) as image:
        return np.unpackbits(np.uint8([np.asarray(image).mean()]))


def exact(data):
    """A hash that finds no altered copy."""
    return np.frombuffer(hashlib.sha256(data).digest(), np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Twelve different photographs."""
    for key, data in photos(12):
        (tmp_path / f"{key}.jpg").write_bytes(data)
    return tmp_path


def as_method(make):
    def search(evaluation, queries):
        stored = np.stack([make(data) for _, data in evaluation])
        distances = [(stored != make(q.encoded)).sum(1) for q in queries]
        return [(evaluation[d.argmin()][0], float(d.min())) for d in distances]

    return search


def test_methods_are_compared_on_planted_copies(folder, monkeypatch, capsys):
    methods = {"grey": as_method(grey_level), "exact": as_method(exact)}
    monkeypatch.setattr(deduplication, "_hash_methods", lambda: methods)
    assert benchmark.main(["deduplication", f"--folder={folder}", "--copies=40"]) == 0
    assert "this package" in capsys.readouterr().out
    arguments = ["deduplication", f"--folder={folder}", "--copies=40", "--json"]
    assert benchmark.main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["images"], result["evaluation"], result["copies"]) == (12, 6, 40)
    ours = result["methods"]["this package"]
    assert ours["recall"] >= 0.9 and ours["precision"] == 1
    assert result["methods"]["exact"]["recall"] < ours["recall"]
    assert not set(ours["by_alteration"]) & {"border", "caption"}


def test_recall_and_precision_are_those_of_hand_counted_rows():
    rows = [
        (Query(b"", "a", "grey", "a"), ("a", 0.0)),
        (Query(b"", "b", "grey", "b"), ("", math.inf)),
        (Query(b"", "c", "flipped", "c"), ("c", 2.0)),
        (Query(b"", None, "", "x"), ("a", 1.0)),  # Wrong.
        (Query(b"", None, "", "y"), ("b", 2.0)),  # A known repeat.
        (Query(b"", None, "", "z"), ("b", 3.0)),
    ]
    score = deduplication._score(rows, 2.0, {frozenset(("y", "b"))})
    assert score["recall"] == pytest.approx(2 / 3)
    assert score["precision"] == pytest.approx(2 / 3)
    assert score["by_alteration"] == {"grey": 0.5, "flipped": 1.0}
    assert score["wrong"] == [["x", "a", 1.0]]
    assert (score["copies"], score["others"]) == (3, 3)


def test_no_copies_are_rejected(folder, capsys):
    assert benchmark.main(["deduplication", f"--folder={folder}", "--copies=0"]) == 1
    assert "`--copies` must be at least 1" in capsys.readouterr().err
