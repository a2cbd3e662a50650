"""The command passes its flags to the library, shows every rate, fails in one line."""
# SPDX-License-Identifier: Apache-2.0

import json

import pytest

from vit_scaling import gin_files
from vit_scaling.commands import finetune
from vit_scaling.scaling.studies import learning_rate_search

REPORT = {
    "learning_rate": 0.01,
    "model_dir": "DIR/rate_0.01",
    "top1": 0.6,
    "runs": [
        {"learning_rate": 0.03, "model_dir": "DIR/rate_0.03", "failed": "no number"},
        {"learning_rate": 0.01, "model_dir": "DIR/rate_0.01", "held_out": 0.5,
         "eval": 0.6},
    ],
}  # fmt: skip


@pytest.fixture
def called(monkeypatch):
    calls = []

    def choose(*arguments, **options):
        calls.append((arguments, options))
        print("what a library says")
        return REPORT

    monkeypatch.setattr(learning_rate_search, "choose_learning_rate", choose)
    return calls


def test_paper_s_experiment_and_rates_are_the_defaults(called, capsys):
    assert finetune.main(["--output_dir=DIR"]) == 0
    [(arguments, options)] = called
    assert arguments == (["experiments/finetune.gin"], [])
    assert options["learning_rates"] == list(learning_rate_search.LEARNING_RATES)
    assert options["held_out"] == learning_rate_search.HELD_OUT
    assert not options["retrain"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["0.03", "failed", "failed"]
    assert lines[3].split() == ["0.01", "50.00", "60.00"]
    assert lines[-1] == "Chosen: 0.01; top-1 60.00 % by DIR/rate_0.01"


def test_flags_reach_the_library_and_json_is_alone_on_stdout(called, capsys):
    flags = ["--output_dir=DIR", "--gin_file=a", "--gin_file=b", "--gin_param=C = 1"]
    flags += ["--learning_rates", "0.1", "0.2", "--held_out=0.1", "--retrain"]
    assert finetune.main([*flags, "--json"]) == 0
    [(arguments, options)] = called
    assert arguments == (["a", "b"], ["C = 1"])
    assert options == {
        "output_dir": "DIR", "learning_rates": [0.1, 0.2], "held_out": 0.1,
        "retrain": True, "find_file": gin_files.find,
    }  # fmt: skip
    output = capsys.readouterr()
    assert json.loads(output.out) == REPORT
    assert "what a library says" in output.err


def test_run_that_cannot_start_is_reported_with_its_reason(tmp_path, capsys):
    flags = [f"--output_dir={tmp_path}", "--learning_rates", "0.1"]
    assert finetune.main([*flags, "--gin_file=no_such"]) == 1
    assert "no_such" in capsys.readouterr().err  # From a real training process.


@pytest.mark.parametrize(
    ("flags", "files", "bindings"),
    [
        (["--lora_rank=4"], ["lora"], ["LORA_RANK = 4"]),
        (["--head_only"], ["head_only"], []),
        (
            ["--layerwise_decay=0.7", "--mixup=0.3", "--label_smoothing=0.2"],
            ["layerwise_decay", "mixup", "label_smoothing"],
            ["LAYERWISE_DECAY = 0.7", "MIXUP = 0.3", "LABEL_SMOOTHING = 0.2"],
        ),
    ],
)
def test_presets_are_gin_files_with_the_flag_s_value(called, flags, files, bindings):
    assert (
        finetune.main(["--output_dir=DIR", *flags, "--gin_param=SHAPE = 'B/16'"]) == 0
    )
    [((found, params), _)] = called
    names = [f"finetuning/{name}.gin" for name in files]
    assert found == ["experiments/finetune.gin", *names]
    assert params == [*bindings, "SHAPE = 'B/16'"]
    for name in names:
        assert gin_files.find(name).is_file()


def test_presets_that_choose_what_is_trained_exclude_each_other(called, capsys):
    with pytest.raises(SystemExit):
        finetune.main(["--output_dir=DIR", "--lora_rank=8", "--head_only"])
    assert "not allowed with argument" in capsys.readouterr().err
