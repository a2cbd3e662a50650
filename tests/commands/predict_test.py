"""The command asks a SavedModel about files or records, and says what is wrong."""
# SPDX-License-Identifier: Apache-2.0

import json

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
        lambda names: iter((n, b"", None) for n in names),
    )
    return calls


def test_table_has_a_line_per_image_and_class(asked, capsys):
    flags = ["--saved_model=S", "--images", "a.png", "b.png", "--batch_size=7"]
    assert predict.main(flags) == 0
    assert asked["saved_model"] == "S" and asked["batch_size"] == 7
    assert [name for name, _, _ in asked["images"]] == ["a.png", "b.png"]
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


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--saved_model=S"], "either --images or --tfrecords"),
        (["--saved_model=S", "--images=a", "--tfrecords=b"], "either --images or"),
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
