"""The command asks a SavedModel about files or records, and says what is wrong."""
# SPDX-License-Identifier: Apache-2.0

import csv
import io
import json
import sys

import pytest

from vit_scaling.commands import predict
from vit_scaling.export import prediction

FOUND = [
    prediction.Prediction("a.png", ("cat", "dog"), (0.75, 0.25)),
    prediction.Prediction("r:1", ("dog", "cat"), (0.5, 0.5), 1),
]


@pytest.fixture
def asked(monkeypatch):
    """Predictions without a model; what the library was asked."""
    calls = {}

    def answered(saved_model):
        calls["saved_model"] = saved_model
        return "answer"

    def predicted(images, answer, *, batch_size):
        calls.update(images=list(images), answer=answer, batch_size=batch_size)
        return iter(FOUND)

    monkeypatch.setattr(prediction, "make_local_predictor", answered)
    monkeypatch.setattr(prediction, "predict", predicted)
    monkeypatch.setattr(
        prediction,
        "read_image_files",
        lambda names: iter(prediction.NamedImage(n) for n in names),
    )
    monkeypatch.setattr(prediction, "list_image_files", lambda patterns: patterns)
    return calls


def test_table_has_a_line_per_image_and_class(asked, capsys):
    flags = ["--saved_model=S", "--images", "a.png", "b.png", "--batch_size=7"]
    assert predict.main(flags) == 0
    assert asked["saved_model"] == "S" and asked["batch_size"] == 7
    assert [image.name for image in asked["images"]] == ["a.png", "b.png"]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == [
        ["a.png", "cat", "0.7500"], ["a.png", "dog", "0.2500"],
        ["r:1", "1", "dog", "0.5000"], ["r:1", "1", "cat", "0.5000"],
    ]  # fmt: skip


def test_json_holds_the_best_classes_that_were_asked_for(asked, capsys):
    flags = ["--saved_model=S", "--images", "a", "b", "c", "--limit=2", "--top=1"]
    assert predict.main([*flags, "--json"]) == 0
    assert len(asked["images"]) == 2
    first, second = json.loads(capsys.readouterr().out)["predictions"]
    assert first == {
        "name": "a.png", "classes": ["cat"], "probabilities": [0.75], "label": None,
    }  # fmt: skip
    assert second["label"] == 1 and second["classes"] == ["dog"]


FAILED = prediction.Prediction("bad.png", error="It is cut off, after 9 bytes.")


def test_csv_has_a_line_per_image_and_class_and_the_errors(asked, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "FOUND", [*FOUND, FAILED])
    assert predict.main(["--saved_model=S", "--images=a", "--format=csv"]) == 1
    printed = capsys.readouterr()
    assert list(csv.reader(io.StringIO(printed.out))) == [
        ["image", "label", "rank", "class", "probability", "error"],
        ["a.png", "", "1", "cat", "0.75", ""],
        ["a.png", "", "2", "dog", "0.25", ""],
        ["r:1", "1", "1", "dog", "0.5", ""],
        ["r:1", "1", "2", "cat", "0.5", ""],
        ["bad.png", "", "", "", "", "It is cut off, after 9 bytes."],
    ]
    assert "1 of 3 images failed:\n  bad.png: It is cut off" in printed.err


def test_json_lines_are_printed_as_soon_as_they_are_known(asked, capsys, monkeypatch):
    def interrupted():
        yield FOUND[0]
        raise ConnectionError("The server is gone.")

    monkeypatch.setattr(prediction, "predict", lambda *_, **__: interrupted())
    assert predict.main(["--saved_model=S", "--images=a", "--format=jsonl"]) == 1
    printed = capsys.readouterr()
    [line] = printed.out.splitlines()
    assert json.loads(line)["classes"] == ["cat", "dog"]
    assert "The server is gone." in printed.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--saved_model=S"], "either --images or --tfrecords"),
        (["--saved_model=S", "--images=a", "--tfrecords=b"], "either --images or"),
        (
            ["--images=a", "--saved_model=S", "--json", "--format=csv"],
            "leave out --form",
        ),
        (["--images=a"], "one of --model_dir, --saved_model and --server"),
        (
            ["--images=a", "--server=x", "--saved_model=S"],
            "one of --model_dir, --saved_model",
        ),
        (["--images=a", "--server=localhost:8500"], "must begin with grpc://"),
        (["--images=a", "--saved_model=S", "--model=m"], "--model has no effect"),
        (["--images=a", "--saved_model=S", "--version=1"], "--version has no effect"),
        (["--images=a", "--saved_model=S", "--image_key=k"], "goes with --tfrecords"),
        (["--images=a", "--saved_model=S", "--label_key=k"], "goes with --tfrecords"),
        (["--images=a", "--saved_model=S", "--top=-1"], "--top must be at least 1"),
        (["--images=a", "--saved_model=S", "--limit=0"], "--limit must be at least 1"),
    ],
)
def test_flags_that_do_not_go_together_are_named(asked, capsys, flags, message):
    assert predict.main(flags) == 1
    assert message in capsys.readouterr().err


def test_fewer_classes_than_wanted_are_explained(asked, capsys):
    assert predict.main(["--saved_model=S", "--images=a", "--top=9"]) == 0
    assert "The model returned 2 classes: all that it has" in capsys.readouterr().err
    assert predict.main(["--saved_model=S", "--images=a", "--top=2"]) == 0
    assert "The model returned" not in capsys.readouterr().err
