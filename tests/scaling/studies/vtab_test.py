"""The validation images choose; the runs on all images are tested; groups average."""
# SPDX-License-Identifier: Apache-2.0

import json
import pathlib

import pytest

from vit_scaling.scaling.studies.vtab import LEARNING_RATES, STEPS, TaskSets, run_vtab


def task(name, group):
    parts = ("train", "val", "test")
    return TaskSets(name, group, 10, {part: f"{name}/{part}-*" for part in parts})


TASKS = (task("a", "natural"), task("b", "natural"), task("c", "structured"))


class FakeTraining:
    """Answers with a task's top-1 at (rate, steps), on `val` and, lower, on `test`."""

    def __init__(self, top1):
        self.top1, self.commands = top1, []

    def __call__(self, command, log):
        self.commands.append(command)
        values = dict(
            word.partition("=")[2].split(" = ", 1)
            for word in command
            if word.startswith("--gin_param=")
        )
        name, _, part = values["EVAL_PATTERN"].strip("'").partition("/")
        setting = float(values["BASE_LEARNING_RATE"]), int(values["TOTAL_STEPS"])
        trained_on = values["TRAIN_PATTERN"].strip("'")
        expected = {"val-*": [f"{name}/train-*"],
                    "test-*": [f"{name}/train-*", f"{name}/val-*"]}  # fmt: skip
        assert trained_on.split(",") == expected[part]
        assert values["CLASSES"] == "10"
        top1 = self.top1[name].get(setting)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("ValueError: The loss is not a number.\n")
        if top1 is None:
            return 1
        [folder] = [w.partition("=")[2] for w in command if w.startswith("--model_dir")]
        path = pathlib.Path(folder) / "metrics.jsonl"
        path.parent.mkdir(parents=True)
        value = top1 if part == "val-*" else top1 - 0.1
        path.write_text(json.dumps({"kind": "eval", "step": 1, "top1": value}))
        return 0


def run(tmp_path, top1, tasks=TASKS, **options):
    training = FakeTraining(top1)
    files = ["experiments/finetune_vtab.gin"]
    report = run_vtab(
        tasks, files, output_dir=tmp_path, runner=training, log=lambda _: None,
        **options,
    )  # fmt: skip
    return training, report


def test_the_published_search_is_the_default():
    assert LEARNING_RATES == (0.1, 0.01) and STEPS == (2_500, 10_000)


def test_each_task_has_its_own_best_and_groups_are_averaged(tmp_path):
    top1 = {
        "a": {(0.1, 2500): 0.5, (0.1, 10000): 0.6, (0.01, 2500): 0.9},
        "b": {(0.1, 10000): 0.7, (0.01, 10000): 0.3},
        "c": {(0.1, 2500): 0.4},
    }
    training, report = run(tmp_path, top1)
    assert len(training.commands) == 3 * (4 + 1)
    chosen = {
        name: (row["learning_rate"], row["steps"], row["val"], row["test"])
        for name, row in report["tasks"].items()
    }
    assert chosen == {
        "a": (0.01, 2500, 0.9, pytest.approx(0.8)),
        "b": (0.1, 10000, 0.7, pytest.approx(0.6)),
        "c": (0.1, 2500, 0.4, pytest.approx(0.3)),
    }
    means = {group: facts["mean"] for group, facts in report["groups"].items()}
    assert means == {"natural": pytest.approx(0.7), "structured": pytest.approx(0.3)}
    # Of tasks, not of groups: VTAB's score.
    assert report["mean"] == pytest.approx((0.8 + 0.6 + 0.3) / 3)
    assert json.loads((tmp_path / "vtab.json").read_text()) == report


def test_a_failed_task_is_reported_and_leaves_the_means(tmp_path):
    top1 = {"a": {(0.01, 2500): 0.9}, "b": {}, "c": {(0.01, 2500): 0.5}}
    _, report = run(tmp_path, top1)
    assert report["tasks"]["b"]["failed"].endswith("The loss is not a number.")
    assert report["groups"]["natural"] == {"tasks": 1, "mean": pytest.approx(0.8)}


def test_one_setting_needs_no_search(tmp_path):
    top1 = {"a": {(0.01, 2500): 0.9}}
    training, report = run(
        tmp_path, top1, TASKS[:1], learning_rates=(0.01,), steps=(2500,)
    )
    assert len(training.commands) == 1 and "val" not in report["tasks"]["a"]
    assert report["mean"] == pytest.approx(0.8)
    with pytest.raises(ValueError, match="must not be empty"):
        run(tmp_path, top1, ())
