"""The command passes its flags to the library, shows every rate, fails in one line."""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vit_scaling import gin_files
from vit_scaling.adapters import is_adapter
from vit_scaling.commands import finetune
from vit_scaling.export import run_loading
from vit_scaling.modeling.vit import vit
from vit_scaling.scaling.studies import learning_rate_search
from vit_scaling.training.run_weights import read_weights

ROOT = Path(__file__).resolve().parents[2]

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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_adapters_by_the_command_show_progress_from_the_start(digit_records, tmp_path):
    """Real processes: the first line comes at once, and the run is exported merged."""
    model = vit("mu/16", image_size=32, classes=10)
    model.save(tmp_path / "mu.keras")
    values = {
        "TRAIN_PATTERN": f"'{digit_records}/train-*'",
        "EVAL_PATTERN": f"'{digit_records}/test-*'",
        "INITIAL_WEIGHTS": f"'{tmp_path}/mu.keras'",
        "SHAPE": "'mu/16'", "CLASSES": 10, "IMAGE_SIZE": 32, "BATCH_SIZE": 16,
        "TOTAL_STEPS": 4, "WARMUP_STEPS": 1, "EVAL_EVERY": None,
        "SHUFFLE_WINDOW": 64,
    }  # fmt: skip
    command = [sys.executable, str(ROOT / "tools/finetune.py"), "--lora_rank=2"]
    command += [f"--output_dir={tmp_path}/out", "--learning_rates", "0.1", "--json"]
    command += [f"--gin_param={name} = {value}" for name, value in values.items()]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    stages = (
        "Train at 0.1", "Loading TensorFlow", "Reading the lists of images.",
        "Building the model.", "Loading the initial weights.", "Compiling the step",
        "step       4/4",
    )  # fmt: skip
    places = [done.stderr.index(stage) for stage in stages]
    assert places == sorted(places)
    log = (tmp_path / "out/rate_0.1.log").read_text()
    assert log in done.stderr
    folder = json.loads(done.stdout)["model_dir"]
    restored, _ = run_loading.load_run(folder)
    assert not any(is_adapter(v.path) for v in restored.variables)
    saved, _ = read_weights(folder)
    assert any(map(is_adapter, saved))
