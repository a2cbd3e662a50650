"""Runs alternate, ratios are of medians, and real processes report their time."""
# SPDX-License-Identifier: Apache-2.0

import itertools
import json
import pathlib

import pytest

from vit_scaling.commands import benchmark
from vit_scaling.commands.benchmarks import step_runs

SMALL = ["--shape=mu/16", "--image_size=32", "--classes=3", "--batch_size=2"]


ORDER, SETTINGS = [], []
SECONDS = {1: [9.0, 3.0, 100.0, 5.0], 10: [9.0, 2.0, 1.0, 2.5], 100: [1.0] * 4}


class ScriptedRun:
    """Stands for a run whose rounds take the seconds listed in SECONDS."""

    def __init__(self, settings):
        SETTINGS.append(settings)
        self.per_loop = settings["steps_per_loop"]
        self.seconds_left = [seconds * 100 for seconds in SECONDS[self.per_loop]]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def seconds(self, steps):
        ORDER.append((self.per_loop, steps))
        return self.seconds_left.pop(0)


def measured(capsys, *flags):
    assert benchmark.main(["step", *SMALL, *flags, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_runs_alternate_and_their_medians_are_compared(monkeypatch, capsys):
    monkeypatch.setattr(step_runs, "MeasuredRun", ScriptedRun)
    result = measured(capsys, "--measure=loops", "--rounds=3", "--warmup_steps=4")
    assert [per for per, _ in ORDER] == [100, 10, 1] * 4
    assert [steps for _, steps in ORDER] == [4] * 3 + [100] * 9
    assert result["seconds_per_step"] == {
        "100_steps_per_loop": 1,
        "10_steps_per_loop": 2,
        "1_step_per_loop": 5,
    }
    assert result["ratio_to_first"]["1_step_per_loop"] == 5
    spread = result["spread_of_seconds_per_step"]["1_step_per_loop"]
    assert spread == {"min": 3, "median": 5, "max": 100}
    table = step_runs.make_table(result)
    last = ("1 step per loop", "3.00", "5.00", "100", "5.00 (3.00 to 100.00)")
    assert table.rows[-1] == last


def test_a_batch_not_divisible_by_the_replicas_is_rejected(monkeypatch, capsys):
    monkeypatch.setattr(step_runs, "MeasuredRun", None)  # No run may start.
    flags = ["step", *SMALL, "--batch_size=3", "--measure=strategies"]
    assert benchmark.main(flags) == 1
    assert "`batch_size` must be a multiple of 2" in capsys.readouterr().err


def test_runs_get_the_flags_of_the_model_and_rounds_have_complete_loops(
    monkeypatch, capsys
):
    monkeypatch.setattr(step_runs, "MeasuredRun", ScriptedRun)
    SETTINGS.clear()
    flags = ["--rematerialize=all", "--fresh_memory", "--steps=120", "--rounds=2"]
    result = measured(capsys, "--measure=loops", *flags)
    assert result["steps_per_round"] == 200
    for settings in (result, *SETTINGS):
        assert settings["rematerialize"] == "all" and settings["fresh_memory"] is True
    assert len(SETTINGS) == 3


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["strategies", "checkpoints"])
def test_real_processes_report_their_seconds(capsys, measure):
    flags = [f"--measure={measure}", "--rounds=1", "--steps=5", "--warmup_steps=1"]
    result = measured(capsys, *flags)
    assert set(result["seconds_per_step"]) == set(step_runs.RUNS[measure])
    assert all(seconds > 0 for seconds in result["seconds_per_step"].values())


@pytest.mark.slow
def test_a_process_that_ends_is_reported(capsys):
    flags = ["--measure=loops", "--shape=XL/16"]
    assert benchmark.main(["step", *SMALL, *flags]) == 1
    assert "A measured process ended" in capsys.readouterr().err


STARTS = []


class StartedRun:
    """Stands for a run whose first step is asked for."""

    def __init__(self, settings):
        STARTS.append((settings.get("against"), settings.get("depth")))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def seconds(self, steps):
        assert steps == 1
        return 0.5


@pytest.mark.parametrize(
    ("flags", "starts"),
    [
        (["--measure=first_step", "--against=/older"], [None, "/older"]),
        (["--measure=depths"], [48, 12]),
    ],
)
def test_first_steps_are_those_of_fresh_processes_in_turn(
    monkeypatch, capsys, flags, starts
):
    monkeypatch.setattr(step_runs, "MeasuredRun", StartedRun)
    clock = iter([0, 8, 8, 10, 10, 14, 14, 16])  # Starts take 8, 2, 4 and 2 seconds.
    monkeypatch.setattr(step_runs, "_processor_seconds", lambda: float(next(clock)))
    STARTS.clear()
    result = measured(capsys, *flags, "--rounds=2")
    assert [against or depth for against, depth in STARTS] == starts * 2
    assert result["ratio"]["wall"]["min"] > 0
    assert result["ratio"]["processor"] == {
        "min": 2,
        "median": 3,
        "max": 4,
        "of_minima": 2,
    }
    table = step_runs.make_table(result)
    assert [row[-1] for row in table.rows][2:] == ["3.00 (2.00 to 4.00)", "1.00"]


def test_the_other_version_is_the_one_of_the_folder_wherever_it_starts(
    monkeypatch, tmp_path
):
    """This version is in the current folder, as in a checkout."""
    folder = tmp_path / "vit_scaling" / "commands" / "benchmarks"
    folder.mkdir(parents=True)
    for parent in (folder, *list(folder.parents)[:2]):
        (parent / "__init__.py").touch()
    (folder / "step_worker.py").write_text(
        "import json\ninput()\nprint(json.dumps({'seconds': 7}))\n"
    )
    monkeypatch.chdir(pathlib.Path(__file__).parents[3])
    with step_runs.MeasuredRun({"against": str(tmp_path)}) as run:
        assert run.seconds(1) == 7


@pytest.mark.parametrize(
    ("measure", "flag"), [("peers", "torch_python"), ("first_step", "against")]
)
def test_a_comparison_names_the_flag_that_it_lacks(monkeypatch, capsys, measure, flag):
    monkeypatch.delenv("VIT_SCALING_TORCH_PYTHON", raising=False)
    assert benchmark.main(["step", *SMALL, f"--measure={measure}"]) == 1
    assert f"needs `--{flag}`" in capsys.readouterr().err


def test_only_timm_runs_in_the_other_interpreter(monkeypatch, capsys):
    made = []

    class Peer(StartedRun):
        def __init__(self, settings):
            made.append(settings.get("torch_python"))

    monkeypatch.setattr(step_runs, "MeasuredRun", Peer)
    seconds = itertools.cycle([2.0, 2.5, 5.0, 4.0])  # In the order of the runs.
    monkeypatch.setattr(Peer, "seconds", lambda self, steps: next(seconds) * steps)
    result = measured(capsys, "--measure=peers", "--torch_python=/torch/python")
    assert made == [None, None, "/torch/python", "/torch/python"]
    assert result["ratio_of_rounds"]["timm_eager"]["of_minima"] == 1
    assert result["reference"] == "timm_eager"
    ratios = [row[-1][:4] for row in step_runs.make_table(result).rows]
    assert ratios == ["0.50", "0.62", "1.25", "1.00"]
