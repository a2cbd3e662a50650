"""The held-out part chooses the learning rate, whatever the evaluation set says."""
# SPDX-License-Identifier: Apache-2.0

import json
import pathlib

import pytest

from vit_scaling.scaling.studies.learning_rate_search import choose_learning_rate

# rate: (held out, evaluation); None fails.
TOP1 = {0.03: (0.70, 0.60), 0.01: (0.65, 0.90), 1.0: None, 0.02: (0.70, 0.10)}


class FakeTraining:
    """Writes the metrics that the training binary would."""

    def __init__(self, sets=("held_out", "eval")):
        self.commands = []
        self.sets = sets

    def __call__(self, command, log):
        self.commands.append(command)
        folder = pathlib.Path(flag(command, "model_dir"))
        rate = float(flag(command, "gin_param=BASE_LEARNING_RATE ").strip())
        log.write_text("loading\nThe loss is not a number.\n")
        folder.mkdir(exist_ok=True)
        (folder / "run.json").write_text("{}")
        if TOP1[rate] is None:
            return 1
        names = self.sets
        if "--gin_file=data/held_out.gin" not in command:
            names = ["eval"]
        rows = [
            {"kind": name, "step": step, "top1": step / 10 * top1}
            for step in (5, 10)  # The last counts.
            for name, top1 in zip(["held_out", "eval"], TOP1[rate], strict=True)
            if name in names
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "metrics.jsonl").write_text('{"kind": "train", "step": 1}\n' + text)
        return 0


def flag(command, name):
    [found] = [word for word in command if word.startswith(f"--{name}=")]
    return found.partition(f"{name}=")[2]


def choose(tmp_path, *more, sets=("held_out", "eval"), **options):
    training = FakeTraining(sets)
    report = choose_learning_rate(
        ["experiments/finetune.gin"], ["CLASSES = 3", *more], output_dir=tmp_path,
        runner=training, log=lambda _: None, **options,
    )  # fmt: skip
    return training, report


def test_best_of_the_held_out_part_is_chosen(tmp_path):
    training, report = choose(tmp_path, learning_rates=(1.0, 0.01, 0.03, 0.02))
    assert report["learning_rate"] == 0.03  # Not 0.01, the evaluation set's best.
    assert report["top1"] == 0.60
    assert report["model_dir"] == str(tmp_path / "rate_0.03")
    assert report["runs"][0]["failed"] == "The loss is not a number."
    assert len(training.commands) == 4
    assert json.loads((tmp_path / "learning_rates.json").read_text()) == report


def test_every_run_leaves_out_the_same_two_percent(tmp_path):
    training, _ = choose(tmp_path)
    assert len(training.commands) == 2  # The paper's two rates.
    for command in training.commands:
        assert flag(command, "gin_param=TRAIN_FRACTION ").strip() == "0.98"
        files = [word for word in command if word.startswith("--gin_file")]
        assert files == [
            "--gin_file=experiments/finetune.gin", "--gin_file=data/held_out.gin",
        ]  # fmt: skip
        assert "--gin_param=CLASSES = 3" in command


def test_last_run_can_be_on_all_images(tmp_path):
    training, report = choose(tmp_path, retrain=True)
    last = training.commands[-1]
    assert flag(last, "gin_param=BASE_LEARNING_RATE ").strip() == "0.03"
    assert not [word for word in last if "held_out" in word or "TRAIN_FRACTION" in word]
    assert report["model_dir"] == str(tmp_path / "all_images")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rates": ()}, "`learning_rates` must be one or more"),
        ({"learning_rates": (0.1, 0.1)}, "`learning_rates` must be one or more"),
        ({"held_out": 0.0}, "`held_out` must be a fraction"),
        ({"held_out": 1.0}, "`held_out` must be a fraction"),
    ],
)
def test_wrong_settings_are_rejected_before_any_run(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        choose(tmp_path, **options)


def test_a_run_that_cannot_start_ends_the_search(tmp_path):
    commands = []

    def cannot_start(command, log):
        commands.append(command)
        log.write_text("Values are required for: SHAPE.\n")
        return 1

    with pytest.raises(RuntimeError, match=r"No run can start.*required for: SHAPE"):
        choose_learning_rate(
            ["experiments/finetune.gin"], output_dir=tmp_path, runner=cannot_start
        )
    assert len(commands) == 1


def test_failure_of_all_runs_names_the_first_reason(tmp_path):
    with pytest.raises(RuntimeError, match="first by: The loss is not a number"):
        choose(tmp_path, learning_rates=(1.0,))


@pytest.mark.parametrize(
    ("more", "options", "message"),
    [
        (["INITIAL_WEIGHTS = 'B'"], {}, "INITIAL_WEIGHTS: 'A', now 'B'"),
        (
            ["INITIAL_WEIGHTS = 'A'"],
            {"held_out": 0.1},
            r"TRAIN_FRACTION: 0\.98, now 0\.9",
        ),
        ([], {}, "INITIAL_WEIGHTS: 'A', now not given"),
    ],
    ids=str,
)
def test_results_of_other_settings_are_not_taken_for_these(
    tmp_path, more, options, message
):
    _, first = choose(tmp_path, "INITIAL_WEIGHTS = 'A'")
    with pytest.raises(ValueError, match=message):
        choose(tmp_path, *more, **options)
    assert json.loads((tmp_path / "learning_rates.json").read_text()) == first


def test_rates_may_be_added_and_a_folder_without_results_may_be_reused(tmp_path):
    with pytest.raises(RuntimeError):
        choose(tmp_path, "INITIAL_WEIGHTS = 'B'", learning_rates=(1.0,))
    choose(tmp_path, "INITIAL_WEIGHTS = 'A'")  # The first left no metrics.
    _, report = choose(tmp_path, "INITIAL_WEIGHTS = 'A'", learning_rates=(0.01, 0.02))
    assert [run["learning_rate"] for run in report["runs"]] == [0.01, 0.02]


def test_edited_gin_file_is_another_setting(tmp_path):
    file = tmp_path / "mine.gin"
    file.write_text("CLASSES = 3\n")
    runs = {"output_dir": tmp_path / "runs", "log": lambda _: None}
    choose_learning_rate([str(file)], runner=FakeTraining(), **runs)
    file.write_text("CLASSES = 4\n")
    with pytest.raises(ValueError, match="CLASSES: 3, now 4"):
        choose_learning_rate([str(file)], runner=FakeTraining(), **runs)


def test_a_binding_that_replaces_the_held_out_set_is_named_before_any_run(tmp_path):
    with pytest.raises(ValueError, match="replace that of data/held_out"):
        choose(tmp_path, "Experiment.eval_data = @EvalData()")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sets", [("eval",), ("held_out",), ()])
def test_a_run_that_did_not_measure_both_sets_ends_the_search(tmp_path, sets):
    missing = {"held_out", "eval"} - set(sets)
    with pytest.raises(
        ValueError, match=r"and not .*binds Experiment\.eval_data"
    ) as message:
        choose(tmp_path, sets=sets)
    assert all(name in str(message.value) for name in missing)
    assert not (tmp_path / "rate_0.01").exists()
