"""The command writes what --format names, and shows every output's difference."""
# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from vit_scaling.commands import export
from vit_scaling.export import portable, saved_model, serving_kit

REPORT = {
    "output_dir": "OUT",
    "step": 7,
    "parameters": 12345,
    "classes": 4,
    "bytes": 3 * 2**20,
    "max_difference": {"logits": 0.0, "features": 2e-7},
}
WRITERS = (
    (saved_model, "export_run"), (portable, "export_run"), (serving_kit, "write_kit"),
)  # fmt: skip


@pytest.fixture
def called(monkeypatch):
    """Which library function was called, with what."""
    calls = []
    for module, name in WRITERS:

        def write(*arguments, module=module, **options):
            calls.append((module, arguments, options))
            return dict(REPORT)

        monkeypatch.setattr(module, name, write)
    return calls


def test_saved_model_is_the_default(called, capsys):
    assert export.main(["--model_dir=RUN", "--output_dir=OUT", "--averages"]) == 0
    [(module, arguments, options)] = called
    assert module is saved_model and arguments == ("RUN", "OUT")
    assert options == {
        "averages": True, "step": None, "top_k": 5, "preprocess": None, "resize": None,
        "jit_compile": False,
    }  # fmt: skip
    text = capsys.readouterr().out
    assert "Wrote OUT: step 7, 12,345 parameters, 4 classes, 3.0 MiB." in text
    assert "features" in text and "2e-07" in text


@pytest.mark.parametrize("kind", ["onnx", "litert"])
def test_other_formats_have_a_writer_of_their_own(called, kind):
    flags = ["--model_dir=RUN", "--output_dir=OUT", f"--format={kind}", "--step=3"]
    assert export.main(flags) == 0
    [(module, arguments, options)] = called
    assert module is portable and arguments == ("RUN", "OUT")
    assert options["kind"] == kind and options["step"] == 3
    assert "top_k" not in options  # Such files list no classes.


def test_kit_gets_its_name_and_version(called, capsys):
    flags = ["--model_dir=RUN", "--output_dir=KIT", "--serving_kit=vit", "--version=4"]
    assert export.main([*flags, "--json"]) == 0
    [(module, _, options)] = called
    assert module is serving_kit
    assert (options["name"], options["version"]) == ("vit", 4)
    assert json.loads(capsys.readouterr().out)["step"] == 7


def test_difference_to_the_runs_precision_is_shown_where_there_is_one():
    report = {**REPORT, "max_difference_to_run_precision": {"logits": 0.01}}
    assert "differ from the run's own precision by 0.01" in export._show(report)
    assert "precision" not in export._show(REPORT)
